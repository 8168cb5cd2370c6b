from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from model.preprocessing import prepare
from model.training import dataset
from model.training.photo_set import (
    ACCEPTED,
    SIMPLER_WAYS,
    UNKNOWN_TO_THE_MODEL,
    PhotoScore,
    PhotoSetError,
    read_photo_set,
    score,
)


def put(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def test_photos_are_found_by_kind_and_in_order(tmp_path):
    put(tmp_path, "README.md", "shoes/b.jpg", "shoes/a.JPEG", "shoes/notes.txt", "hat/c.png", ".cache/d.jpg")
    found = [(photo.kind, photo.path.name) for photo in read_photo_set(tmp_path)]
    assert found == [("hat", "c.png"), ("shoes", "a.JPEG"), ("shoes", "b.jpg")]


def test_a_folder_that_is_no_known_kind_is_an_error_that_names_the_known_ones(tmp_path):
    put(tmp_path, "socks/a.jpg")
    with pytest.raises(PhotoSetError, match=r"socks is not a known kind; .*t-shirt.*skirt"):
        read_photo_set(tmp_path)


def test_a_kind_without_photos_is_an_error(tmp_path):
    put(tmp_path, "dress/readme.txt")
    with pytest.raises(PhotoSetError, match="dress has no PNG, JPEG or WebP files"):
        read_photo_set(tmp_path)


def test_an_empty_folder_and_a_missing_one_are_errors(tmp_path):
    with pytest.raises(PhotoSetError, match="has no folders of photos"):
        read_photo_set(tmp_path)
    with pytest.raises(PhotoSetError, match="There is no folder"):
        read_photo_set(tmp_path / "photos")


def test_every_accepted_label_is_one_of_the_data_set():
    assert set().union(*ACCEPTED.values()) <= set(dataset.LABELS)
    assert not UNKNOWN_TO_THE_MODEL & set(ACCEPTED)


def test_a_label_counts_if_the_kind_accepts_it():
    kinds = ["shoes", "shoes", "longsleeve", "dress", "dress", "dress"]
    labels = ["Sandal", "Bag", "Shirt", "Dress", "Coat", "Dress"]
    expected = {"shoes": (1, 2), "longsleeve": (1, 1), "dress": (2, 3)}
    assert score(kinds, labels) == PhotoScore(4 / 6, expected)


def test_kinds_unknown_to_the_model_do_not_count():
    assert score(["hat", "pants"], ["Bag", "Trouser"]) == PhotoScore(1.0, {"pants": (1, 1)})
    with pytest.raises(ValueError, match="No photo"):
        score(["hat"], ["Bag"])


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
