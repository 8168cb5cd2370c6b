import os
import subprocess
import sys

import numpy as np
import pytest

from model.training.passes import batches


def learned(backend, path):
    command = [sys.executable, "-m", "tests.unit.lesson", str(path)]
    environment = {**os.environ, "KERAS_BACKEND": backend, "JAX_PLATFORMS": "cpu"}
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=300)
    return np.load(path)


@pytest.mark.timeout(700)
@pytest.mark.long
def test_epochs_on_jax_leave_what_those_on_tensorflow_leave(tmp_path):
    """With pictures of different weight, a teacher, and averages."""
    fitted, scanned = (learned(name, tmp_path / f"{name}.npz") for name in ("tensorflow", "jax"))
    assert fitted.files == scanned.files
    # TensorFlow's running variance is that of a sample: by 1 in 6,272 more, where pictures are 14 by 14.
    for name in fitted.files:
        np.testing.assert_allclose(scanned[name], fitted[name], rtol=3e-4, atol=1e-5, err_msg=name)


def test_every_picture_counts_once_and_the_last_batch_as_much_as_the_others():
    places, counts = batches(8, 3)
    assert places.tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 0]]
    assert counts.tolist() == [[1, 1, 1], [1, 1, 1], [1.5, 1.5, 0]]


def test_a_batch_larger_than_the_lesson_repeats_its_pictures():
    places, counts = batches(2, 5)
    assert places.tolist() == [[0, 1, 0, 1, 0]]
    assert counts.tolist() == [[2.5, 2.5, 0, 0, 0]]
