"""What the consumer and its processes send each other: msgpack over a socket pair per process.

consumer                     model process, shadow, decoder
         ◄──── Loading ─────               before each version that is loaded
         ◄──── Loaded ──────               once
         ───── Pictures ───►
         ◄──── Predicted ───               from a model process or shadow, for each batch, in order
         ◄──── Decoded ─────               from a decoder, for each picture, in order

A picture for a decoder is in memory that both share. What a process writes to standard error comes over a
pipe of its own.
"""

import errno
import fcntl
import logging
import math
import os
import re
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from enum import StrEnum
from io import FileIO
from mmap import mmap
from multiprocessing.connection import Connection
from typing import IO

import msgspec

from messaging.contract import ErrorCode, Mode, ServedModel
from model import ModelSettings
from model.manifest import Preparation

_log = logging.getLogger("mlaas.worker")

# A traceback through a library has some fifty lines.
_MOST_LINES, _PERIOD_S, _LONGEST_LINE = 100, 10.0, 4096
_READ_BYTES = 65_536
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")

ModelVersion = tuple[str, str]
"""A model's name, and the version."""


class Role(StrEnum):
    """What a process of the worker does."""

    MODEL = "model"
    """Has the models: prepares small pictures, and predicts."""
    SHADOW = "shadow"
    """Has models whose answers are only compared; yields the processor to the others."""
    DECODER = "decoder"
    """Prepares one picture at a time, and has neither models nor their runtime."""


class Assignment(msgspec.Struct, frozen=True):
    """What a process is started with.

    versions: to load; a decoder has none. memory: a decoder's file descriptor of PictureMemory.
    """

    settings: ModelSettings
    versions: Sequence[ModelVersion] = ()
    memory: int | None = None


class Loading(msgspec.Struct, frozen=True, tag=True):
    """What the process loads next. If it ends then, this version is to blame."""

    version: ModelVersion


class LoadedVersion(msgspec.Struct, frozen=True):
    """A version that is loaded, checked and warm. preparation: for decoders; None if it takes numbers."""

    model: ServedModel
    preparation: Preparation | None


class Loaded(msgspec.Struct, frozen=True, tag=True):
    """The process is ready. failures: why versions could not be loaded."""

    versions: Sequence[LoadedVersion] = ()
    failures: Sequence[tuple[ModelVersion, str]] = ()


class Picture(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """A picture file, and what to do with it.

    preparation: for a decoder, which knows no models. limit_s: the process is killed if preparing the
    picture takes more processor time; 0 for no limit. with_input: whether the outcome carries the prepared
    pixels. shared_bytes: the length of the content if it is in PictureMemory.
    """

    content: bytes
    model: ModelVersion
    mode: Mode
    with_input: bool
    limit_s: float = 0.0
    preparation: Preparation | None = None
    shared_bytes: int = 0


class Tensor(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """One input of the model's network; see messaging.contract.Request."""

    content: bytes
    model: ModelVersion


class PreparedPicture(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """A picture as a decoder has prepared it for the model; see model.preprocessing.Prepared.

    pixels: uint8, row by row, in the height, width and channels of the model's input.
    """

    pixels: bytes
    used_mode: str
    warnings: tuple[str, ...]
    decode_ms: float
    model: ModelVersion
    with_input: bool


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What the model says of one picture or tensor, or an error code with its detail.

    probabilities: in the order of the model's labels; outputs: the numbers of a model without labels.
    infer_ms: the model's time for all its pictures in the batch. input: see Reply; only if asked for.
    """

    probabilities: list[float] = []
    outputs: list[float] = []
    in_distribution: bool | None = None
    ood_score: float | None = None
    mode: str = ""
    warnings: list[str] = []
    input: bytes | None = None
    decode_ms: float = 0.0
    infer_ms: float = 0.0
    error: ErrorCode | None = None
    detail: str = ""


def said(labels: Sequence[str], outcome: Outcome) -> str | list[float]:
    """What the model says in short: its most probable label or, if it has no labels, its numbers."""
    if not outcome.probabilities:
        return outcome.outputs
    return labels[max(range(len(labels)), key=outcome.probabilities.__getitem__)]


class Predicted(msgspec.Struct, frozen=True, tag=True):
    """Outcome i is for picture i."""

    outcomes: list[Outcome]


class Decoded(msgspec.Struct, frozen=True, tag=True):
    """prepared is None if the picture cannot be used; detail says why."""

    prepared: PreparedPicture | None = None
    detail: str = ""


Pictures = list[Picture | PreparedPicture | Tensor]
Answer = Loading | Loaded | Predicted | Decoded

_encode = msgspec.msgpack.Encoder().encode
_decode_answer: Callable[[bytes], Answer] = msgspec.msgpack.Decoder(Answer).decode
_decode_pictures: Callable[[bytes], Pictures] = msgspec.msgpack.Decoder(Pictures).decode


def send_pictures(connection: Connection, pictures: Pictures) -> None:
    connection.send_bytes(_encode(pictures))


def receive_pictures(connection: Connection) -> Pictures:
    """Raises EOFError when the consumer is gone."""
    return _decode_pictures(connection.recv_bytes())


def send_answer(connection: Connection, answer: Answer) -> None:
    connection.send_bytes(_encode(answer))


def receive_answer(connection: Connection) -> Answer:
    """Raises EOFError when the process is gone."""
    return _decode_answer(connection.recv_bytes())


class PictureMemory:
    """Memory that the consumer shares with a decoder, for one picture. It is as large as the largest so far.

    3 MB take 0.6 ms this way, and 1.7 ms over a socket pair. Raises OSError if there is no room.
    """

    def __init__(self, descriptor: int | None = None) -> None:
        """descriptor: the other process's; None for new memory."""
        self._file = FileIO(_new_memory() if descriptor is None else descriptor, "r+b")
        self._mapped: mmap | None = None

    @property
    def descriptor(self) -> int:
        return self._file.fileno()

    def put(self, picture: Picture) -> Picture:
        """The picture without its content, which the other process takes."""
        size = len(picture.content)
        if self._mapped is None or size > len(self._mapped):
            self._close_mapped()
            if os.pwrite(self.descriptor, picture.content or bytes(1), 0) < size:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._mapped = mmap(self.descriptor, 0)
        else:
            self._mapped[:size] = picture.content
        return msgspec.structs.replace(picture, content=b"", shared_bytes=size)

    def take(self, picture: Picture) -> Picture:
        """The picture with its content, which the other process has put."""
        size = picture.shared_bytes
        if self._mapped is None or size > len(self._mapped):
            self._close_mapped()
            self._mapped = mmap(self.descriptor, 0)
        return msgspec.structs.replace(picture, content=self._mapped[:size])

    def close(self) -> None:
        self._close_mapped()
        self._file.close()

    def _close_mapped(self) -> None:
        if self._mapped is not None:
            self._mapped.close()
            self._mapped = None


def _new_memory() -> int:
    """Returns a file descriptor."""
    if not hasattr(os, "memfd_create"):  # macOS
        with tempfile.TemporaryFile(buffering=0) as file:
            return os.dup(file.fileno())
    descriptor = os.memfd_create("picture", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    # The kernel ends a process that writes to mapped memory which the file has lost.
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    return descriptor


class StandardError:
    """Logs the lines that a process and its libraries write to standard error, until it ends. A thread.

    It reads all of them, so that the process never waits, and logs at most a hundred in ten seconds.
    """

    def __init__(self, role: Role, stream: IO[bytes], clock: Callable[[], float] = time.monotonic) -> None:
        """stream: unbuffered."""
        self._role = role
        self._stream = stream
        self._clock = clock
        self._period_began = -math.inf
        self._in_period = self._left_out = 0
        self._thread = threading.Thread(target=self._run, name=f"{role} stderr", daemon=True)
        self._thread.start()

    def wait(self, timeout_s: float) -> None:
        """Until everything is logged that a process wrote before its end."""
        self._thread.join(timeout_s)

    def _run(self) -> None:
        rest = b""
        with self._stream:
            while some := self._stream.read(_READ_BYTES):
                *lines, rest = (rest + some).split(b"\n")
                if len(rest) > _LONGEST_LINE:
                    lines, rest = [*lines, rest], b""
                for line in lines:
                    self._report(line)
        self._report(rest)
        if self._left_out:
            _log.warning("the %s process wrote %d more lines", self._role, self._left_out)

    def _report(self, line: bytes) -> None:
        now = self._clock()
        if now - self._period_began >= _PERIOD_S:
            self._period_began, self._in_period = now, 0
        if not line.strip():
            return
        if self._in_period == _MOST_LINES:
            self._left_out += 1
            return
        self._in_period += 1
        more = f" (after {self._left_out} lines that are left out)" if self._left_out else ""
        self._left_out = 0
        text = _COLOURS.sub("", line.decode(errors="backslashreplace")).rstrip()
        _log.warning("the %s process wrote: %s%s", self._role, text, more)
