"""The main program of the model process and of a decoder: prepares pictures, and predicts on each batch."""

import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from multiprocessing.connection import Connection
from pathlib import Path

import msgspec
import numpy as np
from PIL import Image

from messaging.contract import ErrorCode, ServedModel
from model.classifier import Classifier, is_in_distribution, load, prepare_for, warnings_of
from model.manifest import GarmentPreprocessing, Manifest, ModelError, folder, read
from model.preprocessing import PictureError, Prepared
from model.product import SIDE
from model.product import Pictures as Pixels
from model.settings import ModelSettings
from worker.pipe import (
    Answer,
    Decoded,
    Loaded,
    LoadFailed,
    Outcome,
    Picture,
    Pictures,
    Predicted,
    PreparedPicture,
    Role,
    receive_pictures,
    send_answer,
)

# Small pictures go first when processors are scarce.
_DECODER_NICENESS = 10
# A decoder's memory: without a picture, thread stacks included; and 1.5 times the 16 bytes per pixel that
# decoding takes at most.
_IDLE_BYTES, _BYTES_PER_PIXEL = 192 * 1024 * 1024, 24


def main(arguments: list[str]) -> None:
    """Arguments: role, file descriptor of the socket, ModelSettings as JSON."""
    role, descriptor, given = arguments
    # Ctrl-C reaches every process of the terminal; this one ends when its consumer closes the pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection, settings = Connection(int(descriptor)), msgspec.json.decode(given, type=ModelSettings)
    weights_dir = Path(settings.weights_dir)
    try:
        if role == Role.DECODER:
            limit_resources(settings.max_pixels)
            send_answer(connection, Loaded([]))
            manifests = _Manifests(weights_dir)
            serve(connection, lambda pictures: decode(manifests, _only(pictures), settings.max_pixels))
            return
        models = {
            name: load(weights_dir, name, settings.runtime, settings.threads) for name in settings.names
        }
    except ModelError as error:
        send_answer(connection, LoadFailed(str(error)))
        return
    default = settings.names[0]
    served = [_served(name, model, default=name == default) for name, model in models.items()]
    send_answer(connection, Loaded(served))
    serve(connection, lambda pictures: predict(models, pictures, settings.max_pixels))


def limit_resources(max_pixels: int) -> None:
    """Lower a decoder's priority, and bound its memory: a picture that exceeds it fails with MemoryError."""
    os.nice(_DECODER_NICENESS)
    max_bytes = _IDLE_BYTES + _BYTES_PER_PIXEL * max_pixels
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard == resource.RLIM_INFINITY or max_bytes < hard:
        resource.setrlimit(resource.RLIMIT_DATA, (max_bytes, hard))


def serve(connection: Connection, answer: Callable[[Pictures], Answer]) -> None:
    """Answer until the consumer is gone."""
    try:
        while True:
            send_answer(connection, answer(receive_pictures(connection)))
    except (EOFError, ConnectionError):
        return


def predict(models: Mapping[str, Classifier], pictures: Pictures, max_pixels: int) -> Predicted:
    """Outcomes in the order of the pictures. A picture that cannot be read fails alone."""
    outcomes: dict[int, Outcome] = {}
    rows: dict[str, dict[int, PreparedPicture]] = {}
    with _limited_time(pictures):
        for row, picture in enumerate(pictures):
            try:
                prepared = _prepared(picture, models[picture.model].manifest, max_pixels)
                rows.setdefault(picture.model, {})[row] = prepared
            except PictureError as error:
                outcomes[row] = Outcome(error=ErrorCode.INVALID_PICTURE, detail=str(error))
    for name, of_model in rows.items():
        outcomes |= zip(of_model, _infer(models[name], list(of_model.values())), strict=True)
    return Predicted([outcomes[row] for row in range(len(pictures))])


class _Manifests(dict[str, Manifest]):
    """The manifests of models by name, read when first needed."""

    def __init__(self, weights_dir: Path) -> None:
        self._weights_dir = weights_dir

    def __missing__(self, name: str) -> Manifest:
        """Raises ModelError."""
        self[name] = manifest = read(folder(self._weights_dir, name))
        return manifest


def decode(manifests: Mapping[str, Manifest], picture: Picture, max_pixels: int) -> Decoded:
    """Prepare the picture for `predict` in another process."""
    try:
        with _limited_time([picture]):
            return Decoded(_prepared(picture, manifests[picture.model], max_pixels))
    except PictureError as error:
        if isinstance(error.__cause__, MemoryError):
            return Decoded(detail="Decoding the picture takes more memory than its size allows.")
        return Decoded(detail=str(error))


@contextmanager
def _limited_time(pictures: Sequence[Picture | PreparedPicture]) -> Iterator[None]:
    """Have the kernel end the process by SIGPROF, whatever a decoder does, once its time is used up."""
    limits = (picture.limit_s for picture in pictures if isinstance(picture, Picture))
    signal.setitimer(signal.ITIMER_PROF, max(limits, default=0.0))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)


def _prepared(picture: Picture | PreparedPicture, manifest: Manifest, max_pixels: int) -> PreparedPicture:
    """Raises PictureError."""
    if isinstance(picture, PreparedPicture):
        return picture
    started = time.perf_counter()
    prepared = prepare_for(manifest, picture.content, mode=picture.mode, max_pixels=max_pixels)
    return PreparedPicture(
        pixels=prepared.pixels.tobytes(),
        used_mode=prepared.mode,
        warnings=prepared.warnings,
        decode_ms=(time.perf_counter() - started) * 1000,
        model=picture.model,
        with_input=picture.with_input,
    )


def _infer(classifier: Classifier, pictures: Sequence[PreparedPicture]) -> list[Outcome]:
    shape = classifier.manifest.input.pixels
    pixels = np.frombuffer(b"".join(each.pixels for each in pictures), np.uint8).reshape(-1, *shape)
    started = time.perf_counter()
    predictions = classifier.predict(pixels)
    infer_ms = (time.perf_counter() - started) * 1000
    probabilities = predictions.probabilities.tolist()
    scores = [None] * len(pictures) if predictions.ood_scores is None else predictions.ood_scores.tolist()
    return [
        Outcome(
            probabilities=row,
            in_distribution=is_in_distribution(score),
            ood_score=score,
            mode=each.used_mode,
            warnings=warnings_of(Prepared(its_pixels, each.used_mode, each.warnings), score),
            input=_shown(its_pixels) if each.with_input else None,
            decode_ms=each.decode_ms,
            infer_ms=infer_ms,
        )
        for each, its_pixels, row, score in zip(pictures, pixels, probabilities, scores, strict=True)
    ]


def _shown(pixels: Pixels) -> bytes:
    """As Reply.input carries it."""
    if pixels.shape == (SIDE, SIDE):
        return pixels.tobytes()
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def _only(pictures: Pictures) -> Picture:
    (picture,) = pictures
    assert isinstance(picture, Picture)
    return picture


def _served(name: str, model: Classifier, *, default: bool) -> ServedModel:
    manifest = model.manifest
    into, network = manifest.input, manifest.onnx if model.runtime == "onnx" else manifest.keras
    return ServedModel(
        name=name,
        version=manifest.version,
        default=default,
        runtime=model.runtime,
        labels=list(manifest.labels),
        kind=manifest.kind,
        input=_in_words(manifest),
        shape=into.shape,
        dtype=into.dtype,
        output=manifest.output,
        sha256=network.sha256 if network else "",
        accuracy=manifest.accuracy,
    )


def _in_words(manifest: Manifest) -> str:
    its, size = manifest.preprocessing, manifest.input.in_words
    if isinstance(its, GarmentPreprocessing):
        return f"{size}, 0 to 255, bright clothing on black; a PNG, JPEG or WebP picture is made into it"
    return f"{size}; a PNG, JPEG or WebP picture is made into it ({its.resize})"


if __name__ == "__main__":
    main(sys.argv[1:])
