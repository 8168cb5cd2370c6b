"""From a batch to outcomes: each picture is prepared on its own, each model predicts on all of its own."""

import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from messaging.contract import ErrorCode
from model.classifier import Classifier, is_in_distribution, load, warnings_of
from model.manifest import ModelError
from model.preprocessing import PictureError, Prepared, prepare
from model.product import SIDE
from model.settings import ModelSettings
from worker import pipe
from worker.pipe import (
    Answer,
    Decoded,
    Loaded,
    LoadedModel,
    LoadFailed,
    Outcome,
    Picture,
    Pictures,
    Predicted,
    Role,
    receive_pictures,
)
from worker.pipe import send_answer as send

_INPUT = "{shape} grey, 0 to 255, bright clothing on black; a PNG, JPEG or WebP picture is made into it"

# Small pictures go first if there are too few processors.
_DECODER_NICENESS = 10
# Of a decoder: what it has without a picture, thread stacks included, and half as much again as decoding
# takes at most, which is 16 bytes for a pixel.
_IDLE_BYTES, _BYTES_PER_PIXEL = 192 * 1024 * 1024, 24


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


def main(arguments: list[str]) -> None:
    role, descriptor, given = arguments
    # Ctrl-C reaches every process of the terminal; this one ends when its consumer closes the pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection, settings = Connection(int(descriptor)), msgspec.json.decode(given, type=ModelSettings)
    if role == Role.DECODER:
        be_a_decoder(settings.max_pixels)
        send(connection, Loaded([]))
        serve(connection, lambda pictures: decode(_only(pictures), settings.max_pixels))
        return
    try:
        models = load_all(settings)
    except ModelError as error:
        send(connection, LoadFailed(str(error)))
        return
    send(connection, Loaded([_describe(name, model) for name, model in models.items()]))
    serve(connection, lambda pictures: predict(models, pictures, settings.max_pixels))


def load_all(settings: ModelSettings) -> Mapping[str, Classifier]:
    """By name, each checked and warm, the default first. Raises ModelError."""
    weights_dir = Path(settings.weights_dir)
    return {name: load(weights_dir, name, settings.runtime, settings.threads) for name in settings.names}


def be_a_decoder(max_pixels: int) -> None:
    """Polite, and bounded in memory: over it a picture fails with MemoryError."""
    os.nice(_DECODER_NICENESS)
    most = _IDLE_BYTES + _BYTES_PER_PIXEL * max_pixels
    _, given = resource.getrlimit(resource.RLIMIT_DATA)
    if given == resource.RLIM_INFINITY or most < given:
        resource.setrlimit(resource.RLIMIT_DATA, (most, given))


def serve(connection: Connection, answer: Callable[[Pictures], Answer]) -> None:
    """Until the consumer is gone."""
    try:
        while True:
            send(connection, answer(receive_pictures(connection)))
    except (EOFError, ConnectionError):
        return


def _only(pictures: Pictures) -> Picture:
    (picture,) = pictures
    assert isinstance(picture, Picture)
    return picture


def _describe(name: str, model: Classifier) -> LoadedModel:
    manifest = model.manifest
    return LoadedModel(
        name,
        manifest.version,
        model.runtime,
        list(manifest.labels),
        input=_INPUT.format(shape=" x ".join(map(str, manifest.input_shape))),
        sha256=manifest.onnx_sha256 if model.runtime == "onnx" else manifest.keras_sha256,
        accuracy=manifest.metrics.accuracy,
    )


if __name__ == "__main__":
    main(sys.argv[1:])
