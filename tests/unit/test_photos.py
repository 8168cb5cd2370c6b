from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model.classifier import load
from model.preprocessing import prepare
from model.training import dataset
from model.training.dataset import DatasetError
from model.training.figures import Flagged, Right
from model.training.photos import ACCEPTED, SIMPLER_WAYS, UNKNOWN, measure, read_folder, score, unknown
from tests.unit.measured_model import NearestMean, pictures


def put(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def test_photos_are_found_by_kind_and_in_order(tmp_path):
    put(tmp_path, "README.md", "shoes/b.jpg", "shoes/a.JPEG", "shoes/notes.txt", "hat/c.png", ".cache/d.jpg")
    found = [(path.parent.name, path.name) for path in read_folder(tmp_path)]
    assert found == [("hat", "c.png"), ("shoes", "a.JPEG"), ("shoes", "b.jpg")]


def test_a_folder_that_is_no_known_kind_is_an_error_that_names_the_known_ones(tmp_path):
    put(tmp_path, "socks/a.jpg")
    with pytest.raises(DatasetError, match=r"socks is not a known kind\. .*t-shirt.*skirt"):
        read_folder(tmp_path)


def test_a_kind_without_photos_is_an_error(tmp_path):
    put(tmp_path, "dress/readme.txt")
    with pytest.raises(DatasetError, match=r"dress has no \.avif, \.heic, \.jpeg"):
        read_folder(tmp_path)


def test_an_empty_folder_and_a_missing_one_are_errors(tmp_path):
    with pytest.raises(DatasetError, match="has no folders of photos"):
        read_folder(tmp_path)
    with pytest.raises(DatasetError, match="is not a folder"):
        read_folder(tmp_path / "photos")


def test_every_accepted_label_is_one_of_the_data_set():
    assert set().union(*ACCEPTED.values()) <= set(dataset.LABELS)
    assert not UNKNOWN & set(ACCEPTED)


def test_a_label_counts_if_the_kind_accepts_it():
    kinds = ["shoes", "shoes", "longsleeve", "dress", "dress", "dress"]
    labels = ["Sandal", "Bag", "Shirt", "Dress", "Coat", "Dress"]
    assert score(kinds, labels) == {
        "shoes": Right(right=1, total=2, accuracy=1 / 2),
        "longsleeve": Right(right=1, total=1, accuracy=1.0),
        "dress": Right(right=2, total=3, accuracy=2 / 3),
    }


def test_kinds_that_the_model_does_not_know_do_not_count():
    assert score(["hat", "pants"], ["Bag", "Trouser"]) == {"pants": Right(right=1, total=1, accuracy=1.0)}


def test_a_photo_without_a_label_is_an_error():
    with pytest.raises(ValueError):
        score(["dress", "pants"], ["Dress"])


def test_the_ways_differ_in_what_they_do_with_the_background():
    file = BytesIO()
    image = Image.new("RGB", (300, 400), "saddlebrown")
    image.paste("white", (20, 100, 120, 300))
    image.save(file, "PNG")
    shown = {name: way(file.getvalue(), 1_000_000) for name, way in SIMPLER_WAYS.items()}
    assert all(pixels.shape == (28, 28) and pixels.dtype == np.uint8 for pixels in shown.values())
    assert shown["plain inverted resize"][14, 27] > 100  # the background is left, and is brighter
    assert shown["plain inverted resize"][14, 5] == 0
    assert shown["authors' steps"][14, 14] == 0  # trimmed, yet dark clothes are expected
    served = prepare(file.getvalue(), max_pixels=1_000_000).pixels
    assert served[14, 14] > 100
    assert served[14, 2] == 0


# Measuring.


def sorted_photos(data, folder):
    """Test pictures enlarged on white, in folders as photos are: two of a bag among the trousers."""
    of = {"pants": [1, 1, 8, 8], "shoes": [5, 7, 9], "hat": [8, 8]}
    for kind, classes in of.items():
        (folder / kind).mkdir(parents=True)
        for number, label in enumerate(classes):
            picture = 255 - data.train_images[data.train_labels == label][number]
            canvas = Image.new("L", (600, 600), "white")
            canvas.paste(Image.fromarray(picture).resize((280, 280)), (100, 200))
            canvas.save(folder / kind / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def classifier():
    return NearestMean(pictures())


@pytest.fixture
def photos(tmp_path):
    return sorted_photos(pictures(), tmp_path)


def test_photos_are_counted_by_kind_and_those_of_unknown_kinds_apart(classifier, photos):
    found = measure(classifier, photos, 1_000_000)
    assert found.total == 7
    assert found.per_kind["pants"].total == 4
    assert found.right == sum(its.right for its in found.per_kind.values())
    assert found.accuracy == found.right / 7
    assert set(found.per_kind) == {"pants", "shoes"}
    assert found.ood["hat"].total == 2
    assert sum(found.modes.values()) == 9
    assert set(found.baseline) == {"plain inverted resize", "authors' steps"}


def test_a_model_that_knows_the_kinds_by_name_is_measured_on_each(photos):
    """The shipped photo model, which prepares pictures by itself and has no detector."""
    shipped = load(Path("weights"), "clothing-photo", "onnx", 1)
    found = measure(shipped, photos, 1_000_000)
    assert set(found.per_kind) == {path.name for path in photos.iterdir()}
    assert (found.ood, found.baseline) == ({}, {})
    assert found.modes == {"image": found.total}


def test_photos_that_score_above_one_are_flagged():
    kinds = np.array(["hat", "hat", "pants", "pants", "pants", "pants"])
    found = unknown(kinds, np.array([1.5, 0.9, 0.2, 0.3, 1.2, 0.95], np.float32))
    assert found["hat"] == Flagged(flagged=1, total=2)
    assert found["auroc"] == pytest.approx(6 / 8)
    assert found["known_flagged"] == 0.25


def test_without_unknown_kinds_there_is_no_auroc():
    assert unknown(np.array(["pants"]), np.array([0.5], np.float32)) == {"known_flagged": 0.0}


def test_a_folder_of_unknown_kinds_alone_is_refused(classifier, photos):
    for path in [*photos.glob("pants/*"), *photos.glob("shoes/*")]:
        path.unlink()
    for kind in ("pants", "shoes"):
        (photos / kind).rmdir()
    with pytest.raises(DatasetError, match="no photos of a kind that the model knows"):
        measure(classifier, photos, 1_000_000)


def test_a_photo_that_cannot_be_read_is_named(classifier, photos):
    (photos / "pants" / "9.png").write_bytes(b"not a picture")
    with pytest.raises(DatasetError, match=r"pants/9\.png: This is not"):
        measure(classifier, photos, 1_000_000)
