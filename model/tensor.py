"""Numbers for models whose input is no picture: a row of a table, a window of a signal.

They go to the network as they are. Here they come as the JSON that POST /predict takes, {"inputs": [row]}, or
as the bytes that a request carries over the broker: little-endian, row by row.
"""

import math
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from model.manifest import Input

MODE = "tensor"

Row = NDArray[Any]
"""In the shape and type of the model's input."""


class RowError(Exception):
    """The numbers are not what the model takes. The message is for the user."""


class _Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    inputs: list[Any]


def from_json(content: bytes, into: Input) -> Row:
    """The only row of {"inputs": [row]}. Raises RowError."""
    wanted = f'the model takes {into.in_words}, as {{"inputs": [row]}}'
    try:
        (row,) = msgspec.json.decode(content, type=_Body).inputs
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RowError(f"{wanted}: {error}") from error
    except ValueError as error:
        raise RowError(f"{wanted}: there is more or less than one row") from error
    try:
        values = np.array(row)
    except ValueError as error:
        raise RowError(f"{wanted}: the rows differ in length") from error
    if values.shape != into.shape:
        raise RowError(f"{wanted}: the row has the shape {list(values.shape)}, not {list(into.shape)}")
    dtype = np.dtype(into.dtype)
    accepted = {"f": "fiu", "b": "b"}.get(dtype.kind, "iu")
    if values.dtype.kind not in accepted or not _in_range(values, dtype):
        raise RowError(f"{wanted}: a value is not one of {into.dtype}")
    return values.astype(dtype)


def _in_range(values: Row, dtype: np.dtype[Any]) -> bool:
    if dtype.kind == "b":
        return True
    limits = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)
    return bool(values.min() >= limits.min and values.max() <= limits.max)


def from_bytes(content: bytes, into: Input) -> Row:
    """The row that these bytes are. Raises RowError."""
    dtype = np.dtype(into.dtype).newbyteorder("<")
    size = math.prod(into.shape) * dtype.itemsize
    if len(content) != size:
        raise RowError(f"the model takes {into.in_words}: {size} bytes, not {len(content)}")
    if dtype.kind == "b":
        values = np.frombuffer(content, np.uint8)
        if values.max() > 1:
            raise RowError(f"the model takes {into.in_words}: each is 0 or 1")
        return values.astype(np.bool_).reshape(into.shape)
    row = np.frombuffer(content, dtype).reshape(into.shape)
    if dtype.kind == "f" and not np.isfinite(row).all():
        raise RowError(f"the model takes {into.in_words}: NaN and infinity are not among them")
    return row.astype(into.dtype, copy=False)
