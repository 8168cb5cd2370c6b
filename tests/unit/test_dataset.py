import gzip
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from model.manifest import sha256
from model.training import dataset
from model.training.dataset import DIGESTS, LABELS, DatasetError


def idx(array):
    header = bytes((0, 0, 8, array.ndim)) + b"".join(size.to_bytes(4) for size in array.shape)
    return header + array.tobytes()


def fill(folder, suffix=""):
    for name in DIGESTS:
        raw = idx(np.zeros((2, 28, 28) if "images" in name else 2, np.uint8))
        (folder / f"{name}{suffix}").write_bytes(gzip.compress(raw) if suffix else raw)
    return folder


def test_the_labels_are_in_the_order_of_the_data_set():
    assert LABELS == (
        "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
        "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
    )  # fmt: skip


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_files_are_read_packed_or_not(tmp_path, suffix):
    arrays = dataset.read_folder(fill(tmp_path, suffix))
    assert [array.shape for array in arrays.values()] == [(2, 28, 28), (2,)] * 2


def test_an_array_comes_back_as_it_was_written():
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    assert np.array_equal(dataset.parse_idx(idx(array)), array)


def test_the_first_complete_folder_is_taken(tmp_path):
    half, whole = tmp_path / "half", tmp_path / "whole"
    half.mkdir()
    whole.mkdir()
    fill(half)
    (half / next(iter(DIGESTS))).unlink()
    assert dataset.find(half, fill(whole)) == whole
    assert dataset.find(half, tmp_path / "missing") is None


def test_other_pictures_are_refused_with_what_to_do(tmp_path):
    with pytest.raises(
        DatasetError, match=r"train-images-idx3-ubyte .* is not Fashion-MNIST .* download it again"
    ):
        dataset.load(fill(tmp_path))


@pytest.mark.parametrize(
    "damage", [lambda raw: raw[:-9], lambda raw: raw[:2], lambda raw: b"<html>", lambda raw: b""]
)
def test_a_damaged_file_is_named(tmp_path, damage):
    path = fill(tmp_path, ".gz") / "t10k-labels-idx1-ubyte.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DatasetError, match=r"t10k-labels-idx1-ubyte\.gz is damaged"):
        dataset.read_idx(path)


def test_a_file_shorter_than_its_header_says_is_damaged():
    with pytest.raises(ValueError):
        dataset.parse_idx(idx(np.zeros((2, 28, 28), np.uint8))[:-1])


def test_without_files_the_data_set_is_downloaded(tmp_path, monkeypatch):
    arrays = dict.fromkeys(DIGESTS, np.zeros(2, np.uint8))
    monkeypatch.setattr(dataset, "DEBIAN_DIR", tmp_path)
    monkeypatch.setattr(dataset, "download", lambda: arrays)
    with pytest.raises(DatasetError, match="from the download is not Fashion-MNIST"):
        dataset.load(tmp_path)
    monkeypatch.setattr(dataset, "DIGESTS", {name: sha256(array.tobytes()) for name, array in arrays.items()})
    assert dataset.load(tmp_path).test_labels.tolist() == [0, 0]


def keras_that(load_data):
    return SimpleNamespace(datasets=SimpleNamespace(fashion_mnist=SimpleNamespace(load_data=load_data)))


def test_a_download_comes_in_the_order_of_the_files(monkeypatch):
    monkeypatch.setitem(sys.modules, "keras", keras_that(lambda: (("a", "b"), ("c", "d"))))
    assert dataset.download() == dict(zip(DIGESTS, "abcd", strict=True))


def test_a_failed_download_says_what_to_do_instead(monkeypatch):
    def fail():
        raise OSError("no network")

    monkeypatch.setitem(sys.modules, "keras", keras_that(fail))
    with pytest.raises(DatasetError, match=r"\(no network\).* dataset-fashion-mnist"):
        dataset.download()


def test_the_held_out_pictures_have_the_same_share_of_every_class():
    labels = np.repeat(np.arange(10, dtype=np.uint8), 60)
    chosen = dataset.held_out(labels, 50, seed=1)
    assert np.bincount(labels[chosen]).tolist() == [5] * 10


def test_the_held_out_pictures_follow_from_the_seed():
    labels = np.repeat(np.arange(10, dtype=np.uint8), 60)
    assert np.array_equal(dataset.held_out(labels, 50, seed=1), dataset.held_out(labels, 50, seed=1))
    assert not np.array_equal(dataset.held_out(labels, 50, seed=1), dataset.held_out(labels, 50, seed=2))


@pytest.mark.skipif(
    dataset.find(dataset.DEBIAN_DIR) is None, reason="Debian's dataset-fashion-mnist is not installed"
)
def test_debians_package_is_the_data_set(tmp_path):
    data = dataset.load(tmp_path)
    assert data.train_images.shape == (60_000, 28, 28)
    assert np.bincount(data.test_labels).tolist() == [1000] * 10
