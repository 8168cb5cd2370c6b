"""From a model file to a model folder: inspects the file, says what is assumed, and checks that it works."""

import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec
import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from model import manifest as manifests
from model.classifier import Classifier, alike, cost, load, predict_golden
from model.manifest import (
    Export,
    File,
    Golden,
    ImagePreprocessing,
    Input,
    Manifest,
    ModelError,
    Output,
    PictureInput,
    Scale,
    TensorInput,
    TensorPreprocessing,
    sha256,
)
from model.runtimes import OnnxRuntime

PROBES = 16
"""Trial inputs that show what a network's output is, and whether an export agrees with its original."""

_SIGNS: Mapping[Output, str] = {
    "logits": "numbers below 0 or above 1",
    "sigmoid": "a number between 0 and 1",
    "probabilities": "numbers between 0 and 1 that sum to 1",
    "sigmoids": "numbers between 0 and 1 that do not sum to 1",
}
"""By which answers to trial inputs each kind of output is known."""

AGREEMENT = 1e-3
SMALLEST_SIDE = 8
TYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(int8)": "int8",
    "tensor(int16)": "int16",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(uint8)": "uint8",
    "tensor(uint16)": "uint16",
    "tensor(uint32)": "uint32",
    "tensor(uint64)": "uint64",
    "tensor(bool)": "bool",
}
"""ONNX Runtime's names of the types that an input may have."""


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
    kind: Literal["image", "tensor"] | None = None
    version: str | None = None
    labels: Sequence[str] | None = None
    resize: Literal["stretch", "fit", "crop"] | None = None
    crop_fraction: float = 1.0
    interpolation: Literal["nearest", "area", "bilinear", "bicubic", "lanczos"] | None = None
    invert: bool = False
    scale: Scale | None = None
    mean: Sequence[float] = ()
    std: Sequence[float] = ()
    output: Output | None = None
    golden: Sequence[tuple[Path, str]] = ()
    size: tuple[int, int] | None = None


def add(
    file: str,
    onnx: bytes,
    original: Original | None,
    wanted: Wanted,
    weights_dir: Path,
    say: Say,
    quantize: Callable[[bytes, Classifier], bytes] | None = None,
) -> Path:
    """Makes the folder of a version of a model, and returns it. Raises ModelError and leaves nothing.

    file: what errors call the ONNX file. quantize: makes a smaller ONNX file of that of a classifier.
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
    into = input_of(sized(network.input_shape, wanted.size), network.input_type, wanted.kind)
    say(described(into, wanted))
    rows = answers(network, into)
    output, reason = output_of(wanted, into, rows)
    what = "number" if output == "numbers" and rows.shape[1] == 1 else output
    say(f"output: {rows.shape[1]} {what}{reason}")
    if original is not None:
        say(f"the export differs from Keras by at most {disagreement(rows, original, into):.1e}")
    its = Manifest(
        name=wanted.name,
        version=version,
        labels=labels_of(wanted.labels, rows.shape[1], output),
        input=into,
        preprocessing=(
            preprocessing(wanted, into, original, say)
            if isinstance(into, PictureInput)
            else as_they_are(wanted)
        ),
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
        if quantize is not None:
            onnx = quantize(onnx, classifier)
            its = replace(its, onnx=its.onnx and replace(its.onnx, sha256=sha256(onnx)))
            manifests.replace(staging / "model.onnx", onnx)
            manifests.write(staging, its)
            classifier = load(staging.parents[1], wanted.name, "onnx", 1)
        answered = golden(classifier, wanted.golden, staging, say)
        manifests.write(staging, replace(its, golden=tuple(answered)))
        say(cost(staging))
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


def sized(shape: Sequence[object], size: tuple[int, int] | None) -> tuple[object, ...]:
    """The shape of an input, whose free height and width become the size. Raises ModelError."""
    free = [at for at, axis in enumerate(shape) if at and not isinstance(axis, int)]
    if size is None and len(free) == 2:
        raise ModelError(
            f"the input has the shape {list(shape)}: give height and width, as in --size 224 or 192x256, or "
            "export the model with a fixed size, its batch alone being dynamic"
        )
    if size is None:
        return tuple(shape)
    if len(free) != 2:
        raise ModelError(
            f"the input has the shape {list(shape)}, without a free height and width: leave out --size, or "
            "export the model with the size that you want"
        )
    return tuple(size[free.index(at)] if at in free else axis for at, axis in enumerate(shape))


def input_of(shape: Sequence[object], dtype: str, kind: str | None) -> Input:
    """The input that a network's own description means: of kind image or tensor; None for what it looks like.

    Raises ModelError.
    """
    sizes = [size for size in shape[1:] if isinstance(size, int)]
    if not sizes and len(shape) < 2:
        raise ModelError(f"the input has the shape {list(shape)}: it has no axis besides that of the batch")
    if len(sizes) < len(shape) - 1:
        raise ModelError(f"the input has the shape {list(shape)}: export the model with a fixed size")
    type_ = TYPES.get(dtype)
    if type_ is None:
        raise ModelError(f"the input is a {dtype}; {', '.join(TYPES.values())} can be served")
    if kind != "tensor" and (found := _pictures_of(sizes, type_, is_certain=kind == "image")) is not None:
        return found
    if kind == "image":
        what = f"{list(shape)} and the type {type_}"
        raise ModelError(f"the input has the shape {what}, which is not that of pictures in grey or RGB")
    try:
        return msgspec.convert({"shape": sizes, "dtype": type_}, TensorInput)
    except msgspec.ValidationError as error:
        raise ModelError(f"the input has the shape {list(shape)}: {error}") from error


def _pictures_of(sizes: Sequence[int], dtype: str, *, is_certain: bool) -> PictureInput | None:
    """The input if these are the sizes of pictures. Without an axis for channels, only a square looks so."""
    if dtype not in ("uint8", "float32"):
        return None
    for layout, axes in (("NHW", "HW"), ("NCHW", "CHW"), ("NHWC", "HWC")):
        if len(sizes) != len(axes):
            continue
        found = dict(zip(axes, sizes, strict=True)) | ({} if "C" in axes else {"C": 1})
        height, width = found["H"], found["W"]
        looks_so = "C" in axes or (height == width >= SMALLEST_SIDE)
        if found["C"] in (1, 3) and (looks_so or is_certain):
            described = {"height": height, "width": width, "channels": found["C"], "layout": layout}
            return msgspec.convert(described | {"dtype": dtype}, PictureInput)
    return None


def described(into: Input, wanted: Wanted) -> str:
    """The line that says what the input is, and how to say that it is another."""
    if isinstance(into, PictureInput):
        which = f"input: {into.in_words}, {into.dtype}, {into.layout}"
        return which if wanted.kind or into.layout != "NHW" else f"{which} (--kind tensor: numbers instead)"
    return f"input: {into.in_words}"


def output_of(wanted: Wanted, into: Input, rows: NDArray[np.float32]) -> tuple[Output, str]:
    """What the network gives, and how that is known."""
    if wanted.output:
        return wanted.output, ""
    if wanted.labels is None and isinstance(into, TensorInput):
        return "numbers", ", as there are no --labels"
    output = kind_of(rows)
    return output, f" ({PROBES} trial inputs gave {_SIGNS[output]}; --output changes it)"


def probes(into: Input) -> NDArray[np.generic]:
    """Random inputs as the network takes them; of pictures, the last two are black and white.

    Numbers are from 0 to 1, which most networks can compute; whole ones 0 or 1, which any vocabulary has.
    """
    random = np.random.default_rng(1)
    if isinstance(into, TensorInput):
        shape = PROBES, *into.shape
        numbers = random.random(shape) if "float" in into.dtype else random.integers(0, 2, shape)
        return numbers.astype(into.dtype)
    values = random.integers(0, 256, (PROBES, *into.shape), np.uint8)
    values[-2:] = np.array([0, 255], np.uint8).reshape(2, *(1 for _ in into.shape))
    return values if into.dtype == "uint8" else (values / np.float32(255)).astype(np.float32)


def answers(network: OnnxRuntime, into: Input) -> NDArray[np.float32]:
    """What the network gives for the probes: (n, numbers). Raises ModelError."""
    try:
        output, _ = network.run(probes(into))
    except Exception as error:
        raise ModelError(f"the model cannot run: {str(error).splitlines()[0]}") from error
    is_table = output.ndim == 2 or output.size == PROBES * output.shape[-1]
    if isinstance(into, PictureInput) and not is_table:
        raise ModelError(
            f"the output has the shape {list(output.shape)}; one number for each label is needed"
        )
    rows = output.reshape(PROBES, -1)
    if not np.isfinite(rows).all():
        raise ModelError(
            "the model answers random inputs with something other than finite numbers: "
            "its weights are damaged, or no number from 0 to 1 is valid for it"
        )
    return rows


def kind_of(rows: NDArray[np.float32]) -> Output:
    """What the numbers are, judged by their range and sum."""
    if rows.min() < 0 or rows.max() > 1:
        return "logits"
    if rows.shape[1] == 1:
        return "sigmoid"
    return "probabilities" if np.allclose(rows.sum(axis=1), 1, atol=1e-3) else "sigmoids"


def labels_of(given: Sequence[str] | None, count: int, output: Output) -> tuple[str, ...]:
    """Raises ModelError unless there is a label for each number, or none for output numbers."""
    if output == "numbers":
        if given is not None:
            raise ModelError("numbers have no labels: leave out --labels, or choose another --output")
        return ()
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


def as_they_are(wanted: Wanted) -> TensorPreprocessing:
    """Raises ModelError if the numbers are to be prepared as a picture is."""
    if wanted.scale or wanted.mean or wanted.std or wanted.invert:
        raise ModelError("numbers are not prepared: leave out --scale, --mean, --std and --invert")
    return TensorPreprocessing()


def preprocessing(
    wanted: Wanted, into: PictureInput, original: Original | None, say: Say
) -> ImagePreprocessing:
    """Says what it assumes, and how to change it."""
    resize, interpolation, scale = wanted.resize, wanted.interpolation, wanted.scale
    if resize is None:
        resize = "crop"
        say("resize: crop, the middle of the picture (assumed; --resize and --crop-fraction change it)")
    if interpolation is None:
        interpolation = "bilinear"
        say("interpolation: bilinear (assumed; --interpolation changes it)")
    if scale is None and into.dtype == "uint8":
        scale = "0..255"
        say("values: 0..255 (the input is uint8)")
    elif scale is None and original and original.scales_itself:
        scale = "0..255"
        say("values: 0..255 (the network scales them itself)")
    elif scale is None:
        scale = "0..1"
        say("values: 0..1 (assumed; --scale changes it)")
    if into.dtype == "float32" and not (wanted.mean or wanted.std):
        say("mean, std: none (assumed; --mean and --std change it)")
    if not wanted.golden:
        say("not checked: whether the network learned from such pictures; --golden PICTURE=LABEL checks it")
    return ImagePreprocessing(
        resize=resize,
        crop_fraction=wanted.crop_fraction,
        interpolation=interpolation,
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
    classifier: Classifier, expected: Sequence[tuple[Path, str]], folder: Path, say: Say
) -> list[Golden]:
    """Copies pictures, or rows in JSON, into the folder.

    expected: the label of each, or its numbers, separated by commas. Raises ModelError for another answer.
    """
    found = []
    for number, (path, wanted) in enumerate(expected, 1):
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ModelError(f"{path} cannot be read ({error.strerror})") from error
        answer = predict_golden(path, content, classifier)
        name = f"golden/{number}{path.suffix.lower()}"
        its = Golden(file=name, sha256=sha256(content))
        if classifier.manifest.output == "numbers":
            _check_numbers(path, answer.outputs, wanted)
            said, its = _listed(answer.outputs), replace(its, numbers=tuple(answer.outputs))
        else:
            top, probability = next(iter(answer.probabilities.items()))
            _check_label(path, top, probability, wanted, classifier)
            said, its = (
                f"{top} ({probability:.1%})",
                replace(its, label=top, probability=round(probability, 4)),
            )
        (folder / "golden").mkdir(exist_ok=True)
        manifests.replace(folder / name, content)
        found.append(its)
        say(f"{path}: {said}")
    return found


def _check_label(path: Path, top: str, probability: float, wanted: str, classifier: Classifier) -> None:
    """Raises ModelError."""
    labels = classifier.manifest.labels
    if wanted not in labels:
        raise ModelError(f"{path}: the model has no label {wanted!r}; its labels: {', '.join(labels[:10])}")
    if top != wanted:
        pictures_only = "" if classifier.manifest.kind == "tensor" else ", and --scale, --mean and --std"
        raise ModelError(
            f"{path} is classified as {top} ({probability:.1%}), not as {wanted}: "
            f"check the order of --labels{pictures_only}"
        )


def _check_numbers(path: Path, outputs: Sequence[float], wanted: str) -> None:
    """Raises ModelError."""
    try:
        numbers = [float(each) for each in wanted.split(",")]
    except ValueError as error:
        raise ModelError(f"{path}: the model answers with numbers; {wanted!r} is none") from error
    if not alike(outputs, numbers):
        raise ModelError(f"{path} is answered by {_listed(outputs)}, not by {wanted}")


def _listed(numbers: Sequence[float]) -> str:
    more = f" and {len(numbers) - 10} more" if len(numbers) > 10 else ""
    return ", ".join(f"{number:g}" for number in numbers[:10]) + more
