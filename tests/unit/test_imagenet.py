import os
import pickle
import sys
from collections import OrderedDict
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any

import keras
import numpy as np
import pytest
import skimage.data
from keras import layers
from PIL import Image

from model.training import imagenet
from model.training.imagenet import MAGIC, PROTOCOL, ImagenetError, read

# TensorFlow 2.21's arrays do not know NumPy 2's copy keyword yet.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

CATS, ESPRESSO = {281, 282, 285}, 967  # of ImageNet's classes


# Reading the file, by files that are made here as torch made them.


class FloatStorage:
    pass


class LongStorage:
    pass


class Stored:
    """A tensor: a view of the numbers of a storage."""

    def __init__(self, key: str, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> None:
        self.key, self.view = key, (offset, shape, strides)


def _rebuild_tensor_v2(*arguments: Any) -> None:
    raise AssertionError("only its name is pickled")


@pytest.fixture
def torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules by the names that are pickled, as far as the pickler looks into them."""
    for name, members in {
        "torch": (FloatStorage, LongStorage),
        "torch._utils": (_rebuild_tensor_v2,),
    }.items():
        module = ModuleType(name)
        for member in members:
            monkeypatch.setattr(member, "__module__", name)
            setattr(module, member.__name__, member)
        monkeypatch.setitem(sys.modules, name, module)


class Pickler(pickle.Pickler):
    def __init__(self, file: BytesIO, storages: dict[str, np.ndarray]) -> None:
        super().__init__(file, protocol=2)
        self.storages = storages

    def reducer_override(self, obj: Any) -> Any:
        if not isinstance(obj, Stored):
            return NotImplemented
        return _rebuild_tensor_v2, (("storage", obj.key), *obj.view, False, OrderedDict())

    def persistent_id(self, obj: Any) -> Any:
        if not (isinstance(obj, tuple) and obj[:1] == ("storage",)):
            return None
        numbers = self.storages[obj[1]]
        kind = FloatStorage if numbers.dtype == np.float32 else LongStorage
        return "storage", kind, obj[1], "cpu", len(numbers), None


def file_of(
    tensors: dict[str, Stored], storages: dict[str, np.ndarray], magic: int = MAGIC, protocol: int = PROTOCOL
) -> bytes:
    file = BytesIO()
    state = OrderedDict(tensors)
    state._metadata = OrderedDict()  # type: ignore[attr-defined]  # a state dictionary of torch has one
    for part in (magic, protocol, {"little_endian": True}, state, list(storages)):
        Pickler(file, storages).dump(part)
    for numbers in storages.values():
        file.write(np.int64(len(numbers)).tobytes() + numbers.tobytes())
    return file.getvalue()


NUMBERS = np.arange(24, dtype=np.float32)
PLAIN = Stored("1", 0, (2, 3, 4), (12, 4, 1))


def test_tensors_are_read_by_their_strides(torch: None) -> None:
    tensors = {
        "plain": PLAIN,
        "transposed": Stored("1", 0, (4, 3, 2), (1, 4, 12)),
        "part": Stored("1", 5, (2, 2), (6, 1)),
        "count": Stored("2", 0, (), ()),
    }
    found = read(BytesIO(file_of(tensors, {"2": np.array([7]), "1": NUMBERS})))
    plain = NUMBERS.reshape(2, 3, 4)
    assert list(found) == list(tensors)
    np.testing.assert_array_equal(found["plain"], plain)
    np.testing.assert_array_equal(found["transposed"], plain.transpose(2, 1, 0))
    np.testing.assert_array_equal(found["part"], [[5, 6], [11, 12]])
    assert found["count"] == 7
    assert found["transposed"].dtype == np.float32


class Evil:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.reduced = function, arguments

    def __reduce__(self) -> Any:
        return self.reduced


@pytest.mark.parametrize("place", range(5))
def test_a_pickle_that_names_anything_else_is_refused(torch: None, tmp_path: Path, place: int) -> None:
    trace = tmp_path / "it-ran"
    evil = Evil(os.mkdir, str(trace))
    parts = [MAGIC, PROTOCOL, {}, OrderedDict(), []]
    parts[place] = evil
    with pytest.raises(ImagenetError, match=r"names (posix|nt)\.mkdir"):
        read(BytesIO(b"".join(pickle.dumps(part, protocol=2) for part in parts)))
    assert not trace.exists()


@pytest.mark.parametrize("function", [eval, getattr, pickle.loads, np.load])
def test_so_are_the_usual_ways_around(function: Any) -> None:
    with pytest.raises(ImagenetError, match="which no file of weights needs"):
        read(BytesIO(pickle.dumps(Evil(function, "1"), protocol=2)))


def test_a_name_with_dots_does_not_reach_into_a_module_that_is_known() -> None:
    """Protocol 4 looks up a.b.c attribute by attribute."""
    name = b"\x80\x04\x8c\x05torch\x8c\x19_utils._rebuild_tensor_v2.__globals__\x93."
    with pytest.raises(ImagenetError):
        read(BytesIO(name))


@pytest.mark.parametrize(
    "stored",
    [
        Stored("1", 1, (2, 3, 4), (12, 4, 1)),
        Stored("1", 0, (2,), (24,)),
        Stored("1", -1, (2,), (1,)),
        Stored("1", 23, (2,), (-1,)),
    ],
    ids=["offset", "stride", "before it", "backwards"],
)
def test_no_tensor_reaches_beyond_its_storage(torch: None, stored: Stored) -> None:
    with pytest.raises(ImagenetError, match="beyond its storage"):
        read(BytesIO(file_of({"weight": stored}, {"1": NUMBERS})))


def test_a_file_that_ends_early_is_refused(torch: None) -> None:
    whole = file_of({"weight": PLAIN}, {"1": NUMBERS})
    for end in (0, 10, 40, len(whole) // 2, len(whole) - NUMBERS.nbytes - 4, len(whole) - 1):
        with pytest.raises(ImagenetError):
            read(BytesIO(whole[:end]))


@pytest.mark.parametrize("other", [{"magic": 1}, {"protocol": 1002}])
def test_another_format_is_refused(torch: None, other: dict[str, int]) -> None:
    with pytest.raises(ImagenetError, match="stream format"):
        read(BytesIO(file_of({"weight": PLAIN}, {"1": NUMBERS}, **other)))


# The network.


@pytest.fixture(scope="module")
def trained() -> keras.Model:
    arrays = imagenet.weights()
    pixels = keras.Input((None, None, 3), dtype="uint8")
    network = keras.Model(pixels, layers.Dense(1000)(imagenet.features_to_train(pixels, drop_path=0.5)))
    imagenet.load(network, arrays)
    network.layers[-1].set_weights([arrays["_fc.weight"].T, arrays["_fc.bias"]])
    return network


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    """A cat, and a cup of coffee."""
    found = (Image.fromarray(picture) for picture in (skimage.data.chelsea(), skimage.data.coffee()))
    return np.stack([np.asarray(each.resize((224, 224), Image.Resampling.BILINEAR)) for each in found])


def test_it_knows_what_imagenet_taught_it(trained: keras.Model, pictures: np.ndarray) -> None:
    cat, cup = trained(pictures).numpy().argmax(axis=1)
    assert cat in CATS
    assert cup == ESPRESSO


def test_every_array_of_the_file_is_used(trained: keras.Model) -> None:
    wanted = sum(array.size for name, array in imagenet.weights().items() if "num_batches" not in name)
    assert trained.count_params() == wanted


def test_keras_own_layers_answer_the_same(trained: keras.Model, pictures: np.ndarray) -> None:
    pixels = keras.Input((224, 224, 3), dtype="uint8")
    served = keras.Model(pixels, layers.Dense(1000)(imagenet.features_to_serve(pixels)))
    imagenet.fold(trained, served)
    served.layers[-1].set_weights(trained.layers[-1].get_weights())
    np.testing.assert_allclose(served(pictures).numpy(), trained(pictures).numpy(), atol=1e-3)
