from io import BytesIO
from types import SimpleNamespace

import numpy as np
import pytest

from model.classifier import Detector, load_detector
from model.manifest import File, ModelError, sha256
from model.training.evaluate import auroc
from model.training.ood import OUTLIERS, fit, outliers

SIDE = 28


def features(pictures):
    """Means over 4x4 fields: enough to see a shape."""
    return pictures.reshape(-1, 7, 4, 7, 4).mean(axis=(2, 4), dtype=np.float32).reshape(-1, 49) / 255


def clothing(count, seed):
    """Rectangles, upright for class 0 and lying for class 5, of any grey, with a little noise."""
    random = np.random.default_rng(seed)
    labels = (np.arange(count) % 2 * 5).astype(np.uint8)
    pictures = np.zeros((count, SIDE, SIDE), np.uint8)
    for picture, label in zip(pictures, labels, strict=True):
        left = random.integers(7, 10)
        (picture if label == 0 else picture.T)[:, left : SIDE - left] = random.integers(120, 200)
    speckled = np.where(pictures > 0, pictures + random.integers(0, 30, pictures.shape), 0)
    return speckled.astype(np.uint8), labels


@pytest.fixture(scope="module")
def detector():
    return fit(features, *clothing(1200, 1), clothing(1000, 2)[0])


def score(detector, pictures):
    return detector.score(features(pictures))


def test_95_percent_of_the_pictures_held_out_pass(detector):
    held_out = clothing(1000, 2)[0]
    assert (score(detector, held_out) <= 1).mean() == pytest.approx(0.95, abs=0.003)


def test_about_as_many_pictures_never_seen_pass(detector):
    assert (score(detector, clothing(1000, 3)[0]) <= 1).mean() > 0.9


def test_the_more_usual_half_scores_nothing_and_nothing_scores_less(detector):
    scores = score(detector, clothing(1000, 2)[0])
    assert (scores == 0).mean() == pytest.approx(0.5, abs=0.01)
    assert scores.min() == 0


def test_noise_and_crosses_score_above_clothing(detector):
    random = np.random.default_rng(4)
    noise = random.integers(0, 256, (200, SIDE, SIDE), dtype=np.uint8)
    crosses = np.maximum(clothing(200, 5)[0], clothing(200, 6)[0].transpose(0, 2, 1))
    usual = score(detector, clothing(1000, 3)[0])
    assert auroc(score(detector, noise), usual) > 0.97
    assert auroc(score(detector, crosses), usual) > 0.85


def test_the_same_pictures_give_the_same_detector():
    arguments = *clothing(300, 1), clothing(200, 2)[0]
    assert fit(features, *arguments).to_bytes() == fit(features, *arguments).to_bytes()


def test_a_picture_scores_the_same_alone_and_in_a_batch(detector):
    pictures = np.concatenate(
        (clothing(20, 7)[0], outliers(*clothing(50, 8), OUTLIERS, np.random.default_rng(9))[::200])
    )
    alone = np.concatenate([score(detector, picture[None]) for picture in pictures])
    assert score(detector, pictures) == pytest.approx(alone, abs=1e-3)


def test_scores_are_float32_one_for_each_picture(detector):
    for count in (0, 1, 5):
        scores = score(detector, clothing(5, 1)[0][:count])
        assert scores.shape == (count,) and scores.dtype == np.float32


def test_features_that_say_nothing_make_a_detector_that_flags_nobody():
    silent = fit(
        lambda pictures: np.zeros((len(pictures), 8), np.float32), *clothing(100, 1), clothing(50, 2)[0]
    )
    assert (silent.score(np.zeros((3, 8), np.float32)) <= 1).all()


def test_classes_without_pictures_are_left_out(detector):
    assert detector.centres.shape == (2, 49)


def test_outliers_are_whole_pictures_of_every_kind():
    made = outliers(*clothing(40, 1), OUTLIERS, np.random.default_rng(2))
    assert made.dtype == np.uint8 and made.shape[1:] == (SIDE, SIDE)
    assert len(np.unique(made.reshape(len(made), -1), axis=0)) > 0.8 * len(made)


def test_a_detector_survives_its_file(detector):
    copy = Detector.from_bytes(detector.to_bytes())
    pictures = clothing(50, 3)[0]
    assert (score(copy, pictures) == score(detector, pictures)).all()


def npz(**arrays):
    file = BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def changed(detector, **arrays):
    return npz(**(detector._asdict() | arrays))


def test_what_is_no_detector_is_refused(detector):
    whole = detector.to_bytes()
    one_short = detector.weights[:-1]
    endless = np.full_like(detector.mean, np.inf)
    bad = {
        "nothing": b"",
        "text": b"not a zip",
        "half": whole[: len(whole) // 2],
        "other arrays": npz(threshold=np.float32(1)),
        "an array missing": npz(**{k: v for k, v in detector._asdict().items() if k != "bias"}),
        "one too many": changed(detector, more=np.float32(1)),
        "weights that do not fit": changed(detector, weights=one_short),
        "no matrix": changed(detector, centres=np.float32(1)),
        "infinite": changed(detector, mean=endless),
        "other numbers": changed(detector, mean=detector.mean.astype(np.float64)),
        "objects": changed(detector, bias=np.array({"a": 1}, dtype=object)),
    }
    for content in bad.values():
        with pytest.raises(ValueError, match="not a detector"):
            Detector.from_bytes(content)


def manifest(content):
    return SimpleNamespace(detector=File(file="model.npz", sha256=sha256(content)))


def test_the_detector_of_a_model_is_read_from_its_folder(detector, tmp_path):
    content = detector.to_bytes()
    (tmp_path / "model.npz").write_bytes(content)
    assert (load_detector(tmp_path, manifest(content)).weights == detector.weights).all()


def test_a_file_that_is_not_the_one_trained_is_a_model_error(detector, tmp_path):
    content = detector.to_bytes()
    (tmp_path / "model.npz").write_bytes(content[:-1])
    with pytest.raises(ModelError, match="SHA-256"):
        load_detector(tmp_path, manifest(content))


def test_a_file_with_the_right_digest_and_no_detector_in_it_is_a_model_error(tmp_path):
    (tmp_path / "model.npz").write_bytes(b"anything")
    with pytest.raises(ModelError, match=r"model\.npz is not a detector"):
        load_detector(tmp_path, manifest(b"anything"))
