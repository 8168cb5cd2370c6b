"""A model folder, weights/<name>/<version>/: what is served, and the manifest that describes it.

The manifest is a YAML file that a person can read and write. It names the other files of the folder with
their digests. No file is opened before its digest has been checked.
"""

import hashlib
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

import msgspec
import yaml

Kind = TypeVar("Kind", bound=msgspec.Struct)

FILE_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
FileName = Annotated[str, msgspec.Meta(pattern=FILE_NAME)]
VERSION = r"^[0-9]+(\.[0-9]+)*$"
Version = Annotated[str, msgspec.Meta(pattern=VERSION)]
GoldenName = Annotated[str, msgspec.Meta(pattern=r"^golden/[A-Za-z0-9][A-Za-z0-9._-]*$")]
Digest = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$")]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Count = Annotated[int, msgspec.Meta(ge=1)]
Scale = Literal["0..255", "0..1", "-1..1"]
Output = Literal["probabilities", "logits", "sigmoid", "sigmoids", "numbers"]
DType = Literal[
    "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool"
]
MAX_AXES = 8
MAX_NUMBERS = 4_194_304
"""In one input; in float64 they have 32 MiB, which is more than a message may have by default."""

FILE = "model.yaml"
MAX_BYTES = 1024 * 1024


class ModelError(Exception):
    """The model cannot be loaded. The message names the file and the cause."""


class Input:
    """The array that the network takes for each picture or row. A batch has one more axis, at the front."""

    __slots__ = ()

    @property
    def shape(self) -> tuple[int, ...]:
        raise NotImplementedError

    @property
    def dtype(self) -> str:
        raise NotImplementedError

    @property
    def in_words(self) -> str:
        raise NotImplementedError


class PictureInput(msgspec.Struct, Input, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Pixels. N in the layout is any number of pictures; NHW has no axis for channels."""

    height: Count
    width: Count
    channels: Literal[1, 3]
    dtype: Literal["uint8", "float32"]
    layout: Literal["NHW", "NHWC", "NCHW"]

    @property
    def in_words(self) -> str:
        """Such as 28 x 28 grey; with the sides named if they differ."""
        square = f"{self.height} x {self.width}"
        size = square if self.height == self.width else f"{self.height} high x {self.width} wide"
        return f"{size} {'grey' if self.channels == 1 else 'RGB'}"

    @property
    def pixels(self) -> tuple[int, ...]:
        """The shape of a prepared picture: (h, w) or (h, w, 3)."""
        return (self.height, self.width) if self.channels == 1 else (self.height, self.width, self.channels)

    @property
    def shape(self) -> tuple[int, ...]:
        sizes = {"H": self.height, "W": self.width, "C": self.channels}
        return tuple(sizes[axis] for axis in self.layout[1:])


class TensorInput(msgspec.Struct, Input, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Numbers as they are: a row of a table, a window of a signal."""

    shape: Annotated[tuple[Count, ...], msgspec.Meta(min_length=1, max_length=MAX_AXES)]
    dtype: DType

    @property
    def in_words(self) -> str:
        """Such as 24 x 3 numbers (float32)."""
        return f"{' x '.join(map(str, self.shape))} numbers ({self.dtype})"


class _Declared(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag_field="kind"
):
    """A kind of preprocessing; its field `kind` names it."""


class GarmentPreprocessing(_Declared, frozen=True, kw_only=True, tag="garment"):
    """A picture of clothing becomes one like those of Fashion-MNIST; see model.preprocessing."""

    scale: Scale = "0..255"


class ImagePreprocessing(_Declared, frozen=True, kw_only=True, tag="image"):
    """A picture is resized and its values are scaled; see model.inputs.

    resize: stretch changes the proportions; fit adds a border of this value; crop takes crop_fraction of the
    middle. invert: 255 minus each value, before scaling. scale: what values from 0 to 255 become. mean
    and std: subtracted from the scaled values, and dividing them; one number for each channel.
    """

    resize: Literal["stretch", "fit", "crop"]
    crop_fraction: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1.0
    border: Annotated[int, msgspec.Meta(ge=0, le=255)] = 0
    interpolation: Literal["nearest", "area", "bilinear", "bicubic", "lanczos"] = "bilinear"
    invert: bool = False
    scale: Scale
    mean: tuple[float, ...] = ()
    std: tuple[Annotated[float, msgspec.Meta(gt=0)], ...] = ()


class TensorPreprocessing(_Declared, frozen=True, kw_only=True, tag="tensor"):
    """The input is not a picture: numbers go to the network as they are; see model.inputs."""


PicturePreprocessing = GarmentPreprocessing | ImagePreprocessing
Preprocessing = PicturePreprocessing | TensorPreprocessing


class Preparation(NamedTuple):
    """How a picture becomes a model's input, and which: what a manifest says of it."""

    preprocessing: PicturePreprocessing
    input: PictureInput


class File(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A file of the folder."""

    file: FileName
    sha256: Digest


class Export(File, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """An ONNX file. exported_from: the digest of the .keras file that it was made from, if there is one."""

    exported_from: Digest | None = None


class Golden(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """A picture or a row of numbers, and what the model answers: the most probable label, or numbers."""

    file: GoldenName
    sha256: Digest
    label: str = ""
    probability: Share = 0.0
    numbers: tuple[float, ...] = ()


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """All that serving needs to know of a model.

    output: probabilities, which sum to 1; logits, of which they are the softmax; sigmoid, the probability of
    the second of two labels; sigmoids, independent probabilities; or numbers, which have no labels. keras and
    onnx: the network; one of them is enough. detector: of out-of-distribution pictures, see model.classifier.
    accuracy: the share of test pictures that it classifies correctly. served: whether to serve it without
    being asked for by model.names.
    """

    name: FileName
    version: Version
    labels: tuple[str, ...] = ()
    input: Input
    preprocessing: Preprocessing
    output: Output
    keras: File | None = None
    onnx: Export | None = None
    detector: File | None = None
    accuracy: Share | None = None
    golden: tuple[Golden, ...] = ()
    served: bool = True

    @property
    def current_export(self) -> Export | None:
        """The ONNX file, unless there are other weights in the .keras file."""
        is_stale = self.onnx and self.keras and self.onnx.exported_from != self.keras.sha256
        return None if is_stale else self.onnx

    @property
    def kind(self) -> Literal["garment", "image", "tensor"]:
        """The kind of its preprocessing."""
        match self.preprocessing:
            case GarmentPreprocessing():
                return "garment"
            case ImagePreprocessing():
                return "image"
            case TensorPreprocessing():
                return "tensor"

    @property
    def preparation(self) -> Preparation:
        """Raises ModelError for a model of numbers."""
        its, into = self.preprocessing, self.input
        if isinstance(its, PicturePreprocessing) and isinstance(into, PictureInput):
            return Preparation(its, into)
        raise ModelError(f"{self.name} takes {into.in_words}, not pictures")

    @property
    def takes_mode(self) -> bool:
        """Whether requests may choose how their picture is prepared."""
        return self.kind == "garment"

    @property
    def weights_sha256(self) -> str:
        """The digest of the .keras file, or of the ONNX file if there is no other."""
        file = self.keras or self.onnx
        return file.sha256 if file else ""

    def files(self) -> Iterator[File | Golden]:
        """Every file that the manifest names."""
        yield from (file for file in (self.keras, self.onnx, self.detector) if file is not None)
        yield from self.golden


def names(weights_dir: Path) -> list[str]:
    """The names of the models that have a folder, in alphabetical order."""
    folders = sorted(weights_dir.iterdir()) if weights_dir.is_dir() else []
    return [folder.name for folder in folders if versions(weights_dir, folder.name)]


def versions(weights_dir: Path, name: str) -> list[str]:
    """The versions of a model, oldest first. They are numbers with dots between them: 1.10 follows 1.9."""
    folder = os.path.join(weights_dir, name)
    try:
        found = [each for each in os.listdir(folder) if re.fullmatch(VERSION, each)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(
        (version for version in found if os.path.exists(os.path.join(folder, version, FILE))),
        key=lambda version: [int(number) for number in version.split(".")],
    )


def folder(weights_dir: Path, name: str, version: str = "") -> Path:
    """The folder of a model: of the latest version, if none is given. Raises ModelError if there is none."""
    known = versions(weights_dir, name)
    if version in known:
        return weights_dir / name / version
    if known and version:
        raise ModelError(f"{weights_dir / name} has no {version}/{FILE}; there are {', '.join(known)}")
    if not known:
        there = ", ".join(names(weights_dir)) or "none"
        raise ModelError(
            f"{weights_dir / name} has no <version>/{FILE}, such as 1.0.0/{FILE}; models there: {there}"
        )
    return weights_dir / name / known[-1]


def read(folder: Path) -> Manifest:
    """Reads the manifest of a model folder. Raises ModelError."""
    path = folder / FILE
    manifest = read_yaml(
        path,
        Manifest,
        MAX_BYTES,
        "is not the manifest of a model",
        "; docs/models.md lists the fields and their values",
    )
    if (manifest.name, manifest.version) != (folder.parent.name, folder.name):
        where = f"{manifest.name}/{manifest.version}"
        raise ModelError(f"{path} describes {where}: name its folders so, or change name and version in it")
    if contradiction := contradiction_in(manifest):
        raise ModelError(f"{path} {contradiction}")
    return manifest


def read_yaml(path: Path, kind: type[Kind], max_bytes: int, wrong: str, hint: str = "") -> Kind:
    """Reads a file of a model folder that a person may have written.

    wrong: what a file is that does not suit; hint: what to do about its fields. Raises ModelError.
    """
    try:
        content = path.read_bytes()
        if len(content) > max_bytes:
            raise ModelError(f"{path} is larger than {max_bytes} bytes")
        return msgspec.convert(yaml.safe_load(content), kind, dec_hook=_input)
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, msgspec.ValidationError, ValueError, RecursionError) as error:
        reason = _in_words(error)
        if "Expected `str`, got" in reason:
            reason += "; put it in quotes"
        elif isinstance(error, msgspec.ValidationError):
            reason += hint
        raise ModelError(f"{path} {wrong}: {reason}") from error


def _in_words(error: Exception) -> str:
    """One line. YAML's own message calls the file a byte string and repeats its text."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        said = ", ".join(filter(None, (error.context, error.problem)))
        return f"line {error.problem_mark.line + 1}: {said}"
    return " ".join(str(error).replace('in "<byte string>", ', "at ").split())


def _input(_: type, tree: Any) -> Input:
    """The form that has a shape, or that of pictures. Raises msgspec.ValidationError."""
    its: type[Input] = TensorInput if isinstance(tree, dict) and "shape" in tree else PictureInput
    try:
        return msgspec.convert(tree, its)
    except msgspec.ValidationError as error:
        where = "" if "`$" in str(error) else " - at `$.input`"
        raise msgspec.ValidationError(str(error).replace("`$", "`$.input") + where) from error


def contradiction_in(manifest: Manifest) -> str:
    """What does not fit together, to follow the name of the file; or nothing."""
    if manifest.keras is None and manifest.onnx is None:
        return "names neither a keras nor an onnx file"
    if (manifest.output == "numbers") == bool(manifest.labels):
        return f"has {len(manifest.labels)} labels for the output {manifest.output}"
    if len(set(manifest.labels)) < len(manifest.labels):
        return "has the same label twice"
    if manifest.output == "sigmoid" and len(manifest.labels) != 2:
        return f"has {len(manifest.labels)} labels for the output sigmoid, which needs 2"
    for golden in manifest.golden:
        if (golden.label in manifest.labels) == bool(golden.numbers):
            needed = "one of the labels" if manifest.labels else "numbers"
            return f"says of {golden.file} something other than {needed}"
    its, into = manifest.preprocessing, manifest.input
    if isinstance(its, TensorPreprocessing) or isinstance(into, TensorInput):
        return _contradiction_in_tensor(its, into)
    assert isinstance(into, PictureInput)
    return _contradiction_in_picture(its, into)


def _contradiction_in_tensor(its: Preprocessing, into: Input) -> str:
    if not isinstance(into, TensorInput):
        return "has the preprocessing tensor, whose input has a shape and a dtype, and another input"
    if not isinstance(its, TensorPreprocessing):
        return "has an input with a shape, which needs the preprocessing tensor, and another one"
    count = math.prod(into.shape)
    return f"has an input of {count} numbers; at most {MAX_NUMBERS} are allowed" * (count > MAX_NUMBERS)


def _contradiction_in_picture(its: PicturePreprocessing, into: PictureInput) -> str:
    if into.layout == "NHW" and into.channels != 1:
        return f"has the layout NHW, which leaves no place for {into.channels} channels"
    if into.dtype == "uint8" and its.scale != "0..255":
        return f"has the scale {its.scale} for an input of type uint8, which needs 0..255"
    if isinstance(its, GarmentPreprocessing) and (into.height, into.width, into.channels) != (28, 28, 1):
        return "has the preprocessing garment, whose pictures are 28 x 28 x 1, and another input"
    if isinstance(its, ImagePreprocessing):
        if into.dtype == "uint8" and (its.mean or its.std):
            return "has mean or std for an input of type uint8"
        for name, values in (("mean", its.mean), ("std", its.std)):
            if values and len(values) != into.channels:
                return f"has {len(values)} numbers in {name} for {into.channels} channels"
    return ""


def write(folder: Path, manifest: Manifest) -> None:
    """Writes the manifest atomically."""
    tree = msgspec.to_builtins(manifest)
    text = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120)
    replace(folder / FILE, text.encode())


def verify(path: Path, digest: str) -> bytes:
    """Reads a file whose SHA-256 digest must be this one. Raises ModelError.

    Call it before parsing the file.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror})") from error
    if sha256(content) != digest:
        raise ModelError(f"{path} is not the file that its manifest names: its SHA-256 is not {digest}")
    return content


def sha256(content: bytes) -> str:
    """The SHA-256 digest as 64 hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def replace(path: Path, content: bytes) -> None:
    """Writes a file atomically: a reader sees either the old content or the new."""
    temporary = path.with_name(f"{path.name}.new")
    temporary.write_bytes(content)
    temporary.replace(path)
