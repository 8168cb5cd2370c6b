"""From a batch to outcomes: each picture is prepared on its own, each model predicts on all of its own."""

import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np

from messaging.contract import ErrorCode
from model.classifier import Classifier, is_in_distribution, warnings_of
from model.preprocessing import PictureError, Prepared, prepare
from model.product import SIDE
from worker import pipe
from worker.pipe import Decoded, Outcome, Picture, Pictures, Predicted


class _Ready(NamedTuple):
    """A picture that could be read. row is its place in the batch."""

    row: int
    prepared: Prepared
    with_input: bool
    decode_ms: float


def predict(models: Mapping[str, Classifier], pictures: Pictures, max_pixels: int) -> Predicted:
    """Outcomes in the order of the pictures. One that cannot be read fails alone."""
    outcomes: dict[int, Outcome] = {}
    ready: dict[str, list[_Ready]] = {}
    with _processor_time(pictures):
        for row, picture in enumerate(pictures):
            try:
                one = _ready(row, picture, max_pixels)
            except PictureError as error:
                outcomes[row] = Outcome(error=ErrorCode.INVALID_PICTURE, detail=str(error))
            else:
                ready.setdefault(picture.model, []).append(one)
    for name, its_own in ready.items():
        outcomes |= _infer(models[name], its_own)
    return Predicted([outcomes[row] for row in range(len(pictures))])


def decode(picture: Picture, max_pixels: int) -> Decoded:
    """The picture prepared, for `predict` in another process."""
    try:
        with _processor_time([picture]):
            one = _ready(0, picture, max_pixels)
    except PictureError as error:
        if isinstance(error.__cause__, MemoryError):
            return Decoded(detail="Decoding the picture takes more memory than a picture of its size may.")
        return Decoded(detail=str(error))
    return Decoded(
        pipe.Prepared(
            pixels=one.prepared.pixels.tobytes(),
            used_mode=one.prepared.mode,
            warnings=one.prepared.warnings,
            decode_ms=one.decode_ms,
            model=picture.model,
            with_input=picture.with_input,
        )
    )


def _ready(row: int, picture: Picture | pipe.Prepared, max_pixels: int) -> _Ready:
    """Raises PictureError."""
    if isinstance(picture, pipe.Prepared):
        pixels = np.frombuffer(picture.pixels, np.uint8).reshape(SIDE, SIDE)
        prepared = Prepared(pixels, picture.used_mode, picture.warnings)
        return _Ready(row, prepared, picture.with_input, picture.decode_ms)
    started = time.perf_counter()
    prepared = prepare(picture.content, mode=picture.mode, max_pixels=max_pixels)
    return _Ready(row, prepared, picture.with_input, (time.perf_counter() - started) * 1000)


@contextmanager
def _processor_time(pictures: Sequence[Picture | pipe.Prepared]) -> Iterator[None]:
    """The kernel ends the process by SIGPROF when a picture's time is used up; no decoder can prevent it."""
    limits = (picture.limit_s for picture in pictures if isinstance(picture, Picture))
    signal.setitimer(signal.ITIMER_PROF, max(limits, default=0.0))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)


def _infer(classifier: Classifier, ready: Sequence[_Ready]) -> dict[int, Outcome]:
    started = time.perf_counter()
    predictions = classifier.predict(np.stack([one.prepared.pixels for one in ready]))
    infer_ms = (time.perf_counter() - started) * 1000
    probabilities, scores = predictions.probabilities.tolist(), predictions.ood_scores.tolist()
    return {
        one.row: _outcome(one, its_probabilities, score, infer_ms)
        for one, its_probabilities, score in zip(ready, probabilities, scores, strict=True)
    }


def _outcome(one: _Ready, probabilities: list[float], ood_score: float, infer_ms: float) -> Outcome:
    return Outcome(
        probabilities=probabilities,
        in_distribution=is_in_distribution(ood_score),
        ood_score=ood_score,
        mode=one.prepared.mode,
        warnings=warnings_of(one.prepared, ood_score),
        input=one.prepared.pixels.tobytes() if one.with_input else None,
        decode_ms=one.decode_ms,
        infer_ms=infer_ms,
    )
