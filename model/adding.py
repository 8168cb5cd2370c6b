"""From a model file to a model folder: inspects the file, says what is assumed, and checks that it works."""

import math
import re
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec
import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from model import manifest as manifests
from model.classifier import Classifier, load, predict_picture
from model.manifest import (
    Export,
    File,
    Golden,
    ImagePreprocessing,
    Input,
    Manifest,
    ModelError,
    Scale,
    sha256,
)
from model.preprocessing import PictureError
from model.runtimes import OnnxRuntime

PROBES = 16
"""Random pictures that show what a network's output is, and whether an export agrees with its original."""

AGREEMENT = 1e-3
MAX_PIXELS = 25_000_000
TIMED_RUNS, BATCH = 20, 16

Output = Literal["probabilities", "logits", "sigmoid", "sigmoids"]
Say = Callable[[str], None]
"""Gets one line of text at a time."""


class Original(NamedTuple):
    """A Keras network, exported. scales_itself: it has a layer that scales the values of the picture.

    run: the network itself, on a batch as the export takes it.
    """

    content: bytes
    exported: bytes
    scales_itself: bool
    run: Callable[[NDArray[np.generic]], NDArray[np.float32]]


class Wanted(NamedTuple):
    """What the caller says of the model; None is for what is to be found out, or assumed."""

    name: str
    version: str | None = None
    labels: Sequence[str] | None = None
    resize: Literal["stretch", "fit", "crop"] = "crop"
    crop_fraction: float = 1.0
    interpolation: Literal["nearest", "area", "bilinear", "bicubic", "lanczos"] = "bilinear"
    invert: bool = False
    scale: Scale | None = None
    mean: Sequence[float] = ()
    std: Sequence[float] = ()
    output: Output | None = None
    golden: Sequence[tuple[Path, str]] = ()


def add(
    file: str, onnx: bytes, original: Original | None, wanted: Wanted, weights_dir: Path, say: Say
) -> Path:
    """Makes the folder of a version of a model, and returns it. Raises ModelError and leaves nothing.

    file: what errors call the ONNX file.
    """
    known = manifests.versions(weights_dir, wanted.name)
    version = wanted.version or next_version(known)
    if not re.fullmatch(manifests.FILE_NAME, wanted.name):
        raise ModelError(f"{wanted.name!r} cannot be a name: use letters, digits, and . _ - after the first")
    if not re.fullmatch(manifests.VERSION, version):
        raise ModelError(f"{version!r} cannot be a version: use numbers and dots, such as 1.2.0")
    folder = weights_dir / wanted.name / version
    if folder.exists():
        raise ModelError(f"{folder} exists; choose another --version")
    network = OnnxRuntime(onnx, 1, file)
    into = input_of(network.input_shape, network.input_type)
    say(f"input: {into.in_words}, {into.dtype}, {into.layout}")
    rows = answers(network, into)
    output = wanted.output or kind_of(rows)
    say(f"output: {rows.shape[1]} {output}{'' if wanted.output else ', judged by random pictures'}")
    if original is not None:
        say(f"the export differs from Keras by at most {disagreement(rows, original, into):.1e}")
    its = Manifest(
        name=wanted.name,
        version=version,
        labels=labels_of(wanted.labels, rows.shape[1], output),
        input=into,
        preprocessing=preprocessing(wanted, into, original, say),
        output=output,
        onnx=Export(
            file="model.onnx", sha256=sha256(onnx), exported_from=original and sha256(original.content)
        ),
        keras=original and File(file="model.keras", sha256=sha256(original.content)),
    )
    if contradiction := manifests.contradiction_in(its):
        raise ModelError(f"the model {contradiction}")
    staging = weights_dir / f".{wanted.name}-{version}.new" / wanted.name / version
    shutil.rmtree(staging.parents[1], ignore_errors=True)
    try:
        staging.mkdir(parents=True)
        manifests.replace(staging / "model.onnx", onnx)
        if original is not None:
            manifests.replace(staging / "model.keras", original.content)
        manifests.write(staging, its)
        classifier = load(staging.parents[1], wanted.name, "onnx", 1)
        pictures = golden(classifier, wanted.golden, staging, say)
        manifests.write(staging, replace(its, golden=tuple(pictures)))
        say(speed(classifier))
        folder.parent.mkdir(parents=True, exist_ok=True)
        staging.rename(folder)
        if known and manifests.versions(weights_dir, wanted.name)[-1] != version:
            say(f"{known[-1]} is still the latest version, which is the one that is served")
    except ModelError as error:
        raise ModelError(str(error).replace(f"{staging}/", "")) from error
    finally:
        shutil.rmtree(staging.parents[1], ignore_errors=True)
    return folder


def next_version(known: Sequence[str]) -> str:
    """1.0.0, or the latest with its last number raised by one."""
    if not known:
        return "1.0.0"
    head, dot, last = known[-1].rpartition(".")
    return f"{head}{dot}{int(last) + 1}"


def input_of(shape: Sequence[object], dtype: str) -> Input:
    """The input that a network's own description means. Raises ModelError if it is none for pictures."""
    types = {"tensor(uint8)": "uint8", "tensor(float)": "float32"}
    if dtype not in types:
        raise ModelError(f"the input is a {dtype}; float32 and uint8 can be served")
    sizes = [size if isinstance(size, int) else None for size in shape[1:]]
    if len(sizes) in (2, 3) and None in sizes:
        raise ModelError(f"the input has the shape {list(shape)}: export the model with a fixed size")
    for layout, axes in (("NHW", "HW"), ("NCHW", "CHW"), ("NHWC", "HWC")):
        if len(sizes) != len(axes):
            continue
        found = dict(zip(axes, sizes, strict=True)) | ({} if "C" in axes else {"C": 1})
        if found["C"] not in (1, 3):
            continue
        described = {"height": found["H"], "width": found["W"], "channels": found["C"], "layout": layout}
        return msgspec.convert(described | {"dtype": types[dtype]}, Input)
    raise ModelError(f"the input has the shape {list(shape)}, which is not that of pictures in grey or RGB")


def probes(into: Input) -> NDArray[np.generic]:
    """Random pictures as the network takes them; the last two are black and white."""
    values = np.random.default_rng(1).integers(0, 256, (PROBES, *into.shape), np.uint8)
    values[-2:] = np.array([0, 255], np.uint8).reshape(2, *(1 for _ in into.shape))
    return values if into.dtype == "uint8" else (values / np.float32(255)).astype(np.float32)


def answers(network: OnnxRuntime, into: Input) -> NDArray[np.float32]:
    """What the network gives for the probes: (n, numbers). Raises ModelError."""
    try:
        output, _ = network.run(probes(into))
    except Exception as error:
        raise ModelError(f"the model cannot run: {str(error).splitlines()[0]}") from error
    if output.ndim != 2 and output.size != PROBES * output.shape[-1]:
        raise ModelError(
            f"the output has the shape {list(output.shape)}; one number for each label is needed"
        )
    rows = output.reshape(PROBES, -1)
    if not np.isfinite(rows).all():
        raise ModelError(
            "the model answers with something other than finite numbers: its weights are damaged"
        )
    return rows


def outputs(classifier: Classifier) -> NDArray[np.float32]:
    """What a loaded model gives for random pictures, before it is turned into probabilities: (n, numbers)."""
    return classifier.outputs(probes(classifier.manifest.input))


def kind_of(rows: NDArray[np.float32]) -> Output:
    """What the numbers are, judged by their range and sum."""
    if rows.min() < 0 or rows.max() > 1:
        return "logits"
    if rows.shape[1] == 1:
        return "sigmoid"
    return "probabilities" if np.allclose(rows.sum(axis=1), 1, atol=1e-3) else "sigmoids"


def labels_of(given: Sequence[str] | None, count: int, output: Output) -> tuple[str, ...]:
    """Raises ModelError unless there is a label for each number."""
    needed = 2 if output == "sigmoid" else count
    if given is None:
        raise ModelError(f"the model has {needed} classes: name them with --labels, in its own order")
    if output == "sigmoid" and count != 1:
        raise ModelError(
            f"sigmoid is for a single number, and the model gives {count}: try --output sigmoids"
        )
    if output == "logits" and count == 1:
        raise ModelError("the model has a single output, and it is not between 0 and 1: add a sigmoid to it")
    if len(given) != needed:
        raise ModelError(f"--labels (names or a file) has {len(given)}; the model has {needed} classes")
    return tuple(given)


def preprocessing(wanted: Wanted, into: Input, original: Original | None, say: Say) -> ImagePreprocessing:
    scale = wanted.scale
    if scale is None:
        scale = "0..255" if into.dtype == "uint8" or (original and original.scales_itself) else "0..1"
        reason = "the network scales them itself" if scale == "0..255" else "assumed; --scale changes it"
        say(f"values: {scale} ({reason})")
    return ImagePreprocessing(
        resize=wanted.resize,
        crop_fraction=wanted.crop_fraction,
        interpolation=wanted.interpolation,
        invert=wanted.invert,
        scale=scale,
        mean=tuple(wanted.mean),
        std=tuple(wanted.std),
    )


def disagreement(rows: NDArray[np.float32], original: Original, into: Input) -> float:
    """The largest difference of the export, relative to the largest output. Raises ModelError."""
    expected = original.run(probes(into)).reshape(rows.shape)
    difference = float(np.abs(rows - expected).max() / max(1.0, float(np.abs(expected).max())))
    if not difference <= AGREEMENT:
        raise ModelError(f"the ONNX export answers differently from Keras, by {difference:.2g}")
    return difference


def golden(
    classifier: Classifier, pictures: Sequence[tuple[Path, str]], folder: Path, say: Say
) -> list[Golden]:
    """Copies the pictures into the folder. Raises ModelError if one is not classified as it should be."""
    found = []
    for number, (path, label) in enumerate(pictures, 1):
        try:
            content = path.read_bytes()
            answer = predict_picture(content, classifier, mode="auto", max_pixels=MAX_PIXELS)
        except OSError as error:
            raise ModelError(f"{path} cannot be read ({error.strerror})") from error
        except PictureError as error:
            raise ModelError(f"{path}: {error}") from error
        top, probability = next(iter(answer.probabilities.items()))
        if label not in answer.probabilities:
            known = ", ".join(classifier.manifest.labels[:10])
            raise ModelError(f"{path}: the model has no label {label!r}; its labels: {known}")
        if top != label:
            raise ModelError(
                f"{path} is classified as {top} ({probability:.1%}), not as {label}: "
                "check the order of --labels, and --scale, --mean and --std"
            )
        name = f"golden/{number}{path.suffix.lower()}"
        (folder / "golden").mkdir(exist_ok=True)
        manifests.replace(folder / name, content)
        found.append(
            Golden(file=name, sha256=sha256(content), label=label, probability=round(probability, 4))
        )
        say(f"{path}: {top} ({probability:.1%})")
    return found


def speed(classifier: Classifier) -> str:
    """Milliseconds for one picture, and for each of a batch: the fastest of several runs, on one thread."""

    def fastest_ms(count: int) -> float:
        pictures = np.zeros((count, *classifier.manifest.input.pixels), np.uint8)
        best = math.inf
        for _ in range(TIMED_RUNS):
            started = time.perf_counter()
            classifier.predict(pictures)
            best = min(best, time.perf_counter() - started)
        return best * 1000

    one, batch = fastest_ms(1), fastest_ms(BATCH)
    each = batch / BATCH
    return f"speed on one thread: {one:.2f} ms for one picture, {each:.2f} ms each in a batch of {BATCH}"
