"""The main program of the model process and of a decoder: prepares pictures, and predicts on each batch."""

import math
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
from typing import NamedTuple

import msgspec
import numpy as np
from PIL import Image

from messaging.contract import ErrorCode, ServedModel
from model.classifier import (
    NOT_FINITE,
    Classifier,
    Predictions,
    as_floats,
    is_in_distribution,
    load,
    prepare_for,
    warnings_of,
)
from model.garment import SIDE
from model.garment import Pictures as Pixels
from model.inputs import TENSOR_MODE, Row, RowError, from_bytes
from model.manifest import (
    GarmentPreprocessing,
    ImagePreprocessing,
    Manifest,
    ModelError,
    Preparation,
    TensorPreprocessing,
)
from model.preprocessing import PictureError
from model.runtimes import CannotRun
from worker.pipe import (
    Answer,
    Assignment,
    Decoded,
    Loaded,
    LoadedVersion,
    Loading,
    ModelVersion,
    Outcome,
    Picture,
    PictureMemory,
    Pictures,
    Predicted,
    PreparedPicture,
    Role,
    Tensor,
    receive_pictures,
    send_answer,
)

# Small pictures that somebody waits for go first when processors are scarce.
_NICENESS = 10
# A decoder's memory: without a picture, thread stacks included; and 1.5 times the 16 bytes per pixel that
# decoding takes at most.
_IDLE_BYTES, _BYTES_PER_PIXEL = 192 * 1024 * 1024, 24


def main(arguments: list[str]) -> None:
    """Arguments: role, file descriptor of the socket, Assignment as JSON."""
    role, descriptor, given = arguments
    # Ctrl-C reaches every process of the terminal; this one ends when its consumer closes the pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection, assignment = Connection(int(descriptor)), msgspec.json.decode(given, type=Assignment)
    max_pixels = assignment.settings.max_pixels
    if role != Role.MODEL:
        os.nice(_NICENESS)
    if role == Role.DECODER:
        limit_memory(max_pixels)
        memory = PictureMemory(assignment.memory)
        send_answer(connection, Loaded())
        serve(connection, lambda pictures: decode(memory.take(_only(pictures)), max_pixels))
        return
    try:
        models, failures = load_all(assignment, lambda loading: send_answer(connection, loading))
        send_answer(connection, Loaded([_loaded(model) for model in models.values()], failures))
    except ConnectionError:  # the consumer is gone
        return
    serve(connection, lambda pictures: predict(models, pictures, max_pixels))


def load_all(
    assignment: Assignment, tell: Callable[[Loading], None]
) -> tuple[dict[ModelVersion, Classifier], list[tuple[ModelVersion, str]]]:
    """Load each version, whatever becomes of the others. Returns those loaded, and why the others are not."""
    its, models, failures = assignment.settings, dict[ModelVersion, Classifier](), []
    for name, version in assignment.versions:
        tell(Loading((name, version)))
        try:
            models[name, version] = load(Path(its.weights_dir), name, its.runtime, its.threads, version)
        except ModelError as error:
            failures.append(((name, version), str(error)))
    return models, failures


def limit_memory(max_pixels: int) -> None:
    """Bound a decoder's memory: a picture that exceeds it fails with MemoryError."""
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


def predict(models: Mapping[ModelVersion, Classifier], pictures: Pictures, max_pixels: int) -> Predicted:
    """Outcomes in the order of the pictures. A picture or tensor that cannot be used fails alone."""
    outcomes: dict[int, Outcome] = {}
    prepared: dict[ModelVersion, dict[int, PreparedPicture]] = {}
    rows: dict[ModelVersion, dict[int, Row]] = {}
    with _limited_time(pictures):
        for at, each in enumerate(pictures):
            its = models[each.model].manifest
            try:
                if isinstance(each, Tensor):
                    rows.setdefault(each.model, {})[at] = from_bytes(each.content, its.input)
                else:
                    prepared.setdefault(each.model, {})[at] = _prepared(each, its, max_pixels)
            except PictureError as error:
                outcomes[at] = Outcome(error=ErrorCode.INVALID_PICTURE, detail=str(error))
            except (RowError, ModelError) as error:
                outcomes[at] = _refused(str(error))
    for model, of_model in prepared.items():
        outcomes |= zip(of_model, _infer(models[model], list(of_model.values())), strict=True)
    for model, rows_of_model in rows.items():
        found = _infer_rows(models[model], list(rows_of_model.values()))
        outcomes |= zip(rows_of_model, found, strict=True)
    return Predicted([outcomes[at] for at in range(len(pictures))])


def decode(picture: Picture, max_pixels: int) -> Decoded:
    """Prepare the picture, as it says itself, for `predict` in another process."""
    assert picture.preparation is not None
    try:
        with _limited_time([picture]):
            return Decoded(_prepared(picture, picture.preparation, max_pixels))
    except PictureError as error:
        if isinstance(error.__cause__, MemoryError):
            return Decoded(detail="Decoding the picture takes more memory than its size allows.")
        return Decoded(detail=str(error))


@contextmanager
def _limited_time(pictures: Sequence[Picture | PreparedPicture | Tensor]) -> Iterator[None]:
    """Have the kernel end the process by SIGPROF, whatever a decoder does, once its time is used up."""
    limits = (picture.limit_s for picture in pictures if isinstance(picture, Picture))
    signal.setitimer(signal.ITIMER_PROF, max(limits, default=0.0))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)


def _prepared(
    picture: Picture | PreparedPicture, its: Manifest | Preparation, max_pixels: int
) -> PreparedPicture:
    """Raises PictureError."""
    if isinstance(picture, PreparedPicture):
        return picture
    started = time.perf_counter()
    prepared = prepare_for(its, picture.content, mode=picture.mode, max_pixels=max_pixels)
    return PreparedPicture(
        pixels=prepared.pixels.tobytes(),
        used_mode=prepared.mode,
        warnings=prepared.warnings,
        decode_ms=(time.perf_counter() - started) * 1000,
        model=picture.model,
        with_input=picture.with_input,
    )


def _infer(classifier: Classifier, pictures: Sequence[PreparedPicture]) -> list[Outcome]:
    shape = classifier.manifest.preparation.input.pixels
    pixels = np.frombuffer(b"".join(each.pixels for each in pictures), np.uint8).reshape(-1, *shape)
    started = time.perf_counter()
    predictions = classifier.predict(pixels)
    infer_ms = (time.perf_counter() - started) * 1000
    return [
        _outcome(
            answer,
            each.used_mode,
            each.warnings,
            input=_shown(its_pixels) if each.with_input else None,
            decode_ms=each.decode_ms,
            infer_ms=infer_ms,
        )
        for each, its_pixels, answer in zip(
            pictures, pixels, _answers(predictions, classifier.manifest), strict=True
        )
    ]


def _infer_rows(classifier: Classifier, rows: Sequence[Row]) -> list[Outcome]:
    """If the network cannot compute the batch, each row is tried alone."""
    started = time.perf_counter()
    try:
        predictions = classifier.infer(np.stack(rows))
    except CannotRun as error:
        if len(rows) > 1:
            return [outcome for row in rows for outcome in _infer_rows(classifier, [row])]
        return [_refused(f"the model cannot compute these numbers: {error}")]
    infer_ms = (time.perf_counter() - started) * 1000
    return [
        _outcome(answer, TENSOR_MODE, infer_ms=infer_ms)
        if all(map(math.isfinite, (*answer.probabilities, *answer.outputs)))
        else _refused(NOT_FINITE)
        for answer in _answers(predictions, classifier.manifest)
    ]


def _outcome(
    answer: "_Answer",
    mode: str,
    warnings: Sequence[str] = (),
    *,
    infer_ms: float,
    decode_ms: float = 0.0,
    input: bytes | None = None,
) -> Outcome:
    return Outcome(
        probabilities=answer.probabilities,
        outputs=answer.outputs,
        in_distribution=is_in_distribution(answer.ood_score),
        ood_score=answer.ood_score,
        mode=mode,
        warnings=warnings_of(warnings, answer.ood_score),
        input=input,
        decode_ms=decode_ms,
        infer_ms=infer_ms,
    )


def _refused(detail: str) -> Outcome:
    return Outcome(error=ErrorCode.INVALID_REQUEST, detail=detail)


class _Answer(NamedTuple):
    """To one input: its probabilities, or the outputs of a model without labels."""

    probabilities: list[float]
    outputs: list[float]
    ood_score: float | None


def _answers(predictions: Predictions, manifest: Manifest) -> Iterator[_Answer]:
    has_labels, scores = manifest.output != "numbers", predictions.ood_scores
    nothing: list[list[float]] = [[]] * len(predictions.answers)
    return map(
        _Answer,
        predictions.answers.tolist() if has_labels else nothing,
        nothing if has_labels else map(as_floats, predictions.answers),
        [None] * len(predictions.answers) if scores is None else scores.tolist(),
    )


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


def _loaded(model: Classifier) -> LoadedVersion:
    its = model.manifest
    return LoadedVersion(_described(model), None if its.kind == "tensor" else its.preparation)


def _described(model: Classifier) -> ServedModel:
    manifest = model.manifest
    into, network = manifest.input, manifest.onnx if model.runtime == "onnx" else manifest.keras
    return ServedModel(
        name=manifest.name,
        version=manifest.version,
        runtime=model.runtime,
        labels=list(manifest.labels),
        kind=manifest.kind,
        output_size=model.output_size,
        input=_in_words(manifest),
        shape=into.shape,
        dtype=into.dtype,
        output=manifest.output,
        sha256=network.sha256 if network else "",
        accuracy=manifest.accuracy,
    )


def _in_words(manifest: Manifest) -> str:
    its, size = manifest.preprocessing, manifest.input.in_words
    match its:
        case GarmentPreprocessing():
            return f"{size}, 0 to 255, bright clothing on black; a picture is made into it"
        case ImagePreprocessing():
            return f"{size}; a picture is made into it ({its.resize})"
        case TensorPreprocessing():
            return size


if __name__ == "__main__":
    main(sys.argv[1:])
