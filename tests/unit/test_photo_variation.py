from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace
from PIL import Image

from model.decoding import PictureError
from model.training import drawn_clothes
from model.training.dataset import DatasetError
from model.training.network import targets
from model.training.photo_variation import (
    Photos,
    VariationSettings,
    mix,
    place,
    read,
    rectangle,
    seen,
    variation,
    varied,
)

NONE = VariationSettings(
    area_min=1, aspect=1, turn_degrees=0, flip=False, light=0, contrast=0, saturation=0, mixup=0, cutmix=0
)
ALL = VariationSettings(
    area_min=0.5, aspect=1.3, turn_degrees=7, flip=True, light=0.3, contrast=0.3, saturation=0.4, mixup=0.3,
    cutmix=0.3,
)  # fmt: skip


def photos(count: int, side: int = 48) -> Photos:
    random = np.random.default_rng(count)
    images = random.integers(0, 256, (count, side, side, 3), np.uint8)
    return Photos(images, (np.arange(count) % 10).astype(np.uint8))


def encoded(image: Image.Image, **options: object) -> bytes:
    file = BytesIO()
    image.save(file, "PNG", **options)
    return file.getvalue()


# Reading.


def test_a_picture_is_turned_upright_and_stretched() -> None:
    image = Image.new("RGB", (60, 30), "red")
    image.paste("blue", (30, 0, 60, 30))
    exif = Image.Exif()
    exif[274] = 6  # to be turned clockwise by a quarter
    pixels = seen(encoded(image, exif=exif), 32)
    assert pixels.shape == (32, 32, 3)
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels[2, 16], (255, 0, 0))
    np.testing.assert_array_equal(pixels[29, 16], (0, 0, 255))


def test_a_grey_picture_has_three_equal_colours() -> None:
    pixels = seen(encoded(Image.new("L", (10, 20), 77)), 32)
    assert (pixels == 77).all()


def test_what_is_no_picture_is_refused() -> None:
    with pytest.raises(PictureError):
        seen(b"not a picture", 32)


def test_a_folder_is_read_by_its_kinds(tmp_path: Path) -> None:
    for kind in ("pants", "dress"):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "1.png").write_bytes(encoded(drawn_clothes.draw(kind, 1)))
    found = read(tmp_path, ("pants", "dress"), 32)
    assert found.images.shape == (2, 32, 32, 3)
    assert found.labels.tolist() == [1, 0]
    with pytest.raises(DatasetError, match="has a folder dress"):
        read(tmp_path, ("pants", "hat"), 32)
    (tmp_path / "pants" / "2.jpg").write_bytes(b"broken")
    with pytest.raises(DatasetError, match=r"2\.jpg"):
        read(tmp_path, ("pants", "dress"), 32)


# Varying.


def test_no_variation_is_the_picture() -> None:
    picture = np.asarray(drawn_clothes.draw("dress", 1).resize((64, 64)))
    np.testing.assert_array_equal(variation(picture, 64, NONE, np.random.default_rng(1)), picture)


def test_a_mirrored_one_is_its_mirror_image() -> None:
    picture = np.asarray(drawn_clothes.draw("dress", 1).resize((64, 64)))
    found = [
        variation(picture, 64, replace(NONE, flip=True), np.random.default_rng(seed)) for seed in range(20)
    ]
    mirrored = [np.array_equal(each, picture[:, ::-1]) for each in found]
    assert any(mirrored)
    assert not all(mirrored)
    assert all(np.array_equal(each, picture) for each, is_ in zip(found, mirrored, strict=True) if not is_)


def test_a_part_stays_inside_and_has_its_area() -> None:
    """Without a turn, so that the corners of what is shown are within the photo."""
    rule = replace(ALL, turn_degrees=0)
    for seed in range(200):
        a, b, c, d, e, f = place(100, 50, rule, np.random.default_rng(seed))
        corners = np.array([(a * x + b * y + c, d * x + e * y + f) for x in (0, 50) for y in (0, 50)])
        assert corners.min() >= -1e-6
        assert corners.max() <= 100 + 1e-6
        share = abs(a * e - b * d) * 50 * 50 / 100**2
        assert 0.5 / 1.15 <= share <= 1 + 1e-6
        assert 1 / 1.31 <= abs(a / e) <= 1.31


def test_the_seed_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    several = photos(6)
    first = varied(several, 32, ALL, (1, 2))
    np.testing.assert_array_equal(varied(several, 32, ALL, (1, 2)), first)
    for other in ((1, 3), (2, 2)):
        assert (varied(several, 32, ALL, other) != first).any()
    assert first.shape == (6, 32, 32, 3)


# Mixing.


def test_targets_have_as_much_of_a_label_as_the_picture() -> None:
    """Pictures of a single brightness, which is ten times their label, show how much of whom they have."""
    labels = np.arange(10, dtype=np.uint8)
    images = np.broadcast_to((labels * 20)[:, None, None, None], (10, 32, 32, 3)).astype(np.uint8)
    truth = targets(labels, 10, None)
    found, mixed = mix(images, truth, ALL, np.random.default_rng(3))
    np.testing.assert_allclose(mixed.sum(axis=2), 1, atol=1e-5)
    expected = (mixed[:, 0] * labels * 20).sum(axis=1)
    np.testing.assert_allclose(found.mean(axis=(1, 2, 3)), expected, atol=0.6)
    changed = (found != images).any(axis=(1, 2, 3))
    assert changed.any()
    assert not changed.all()
    np.testing.assert_array_equal(truth, targets(labels, 10, None))


def test_nothing_is_mixed_if_no_share_is_set() -> None:
    several = photos(8)
    truth = targets(several.labels, 10, None)
    found, mixed = mix(several.images, truth, NONE, np.random.default_rng(1))
    np.testing.assert_array_equal(found, several.images)
    np.testing.assert_array_equal(mixed, truth)


def test_a_rectangle_lies_in_the_picture() -> None:
    for seed in range(100):
        rows, columns = rectangle(20, np.random.default_rng(seed))
        for part in (rows, columns):
            assert 0 <= part.start < part.stop <= 20
