"""Runs the model and the decoders in child processes, so that a picture that ends one costs a restart."""

import logging
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import TypeVar

import msgspec

from messaging.contract import ErrorCode
from messaging.picture_header import Size
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
    Role,
    Tensor,
    receive_answer,
    send_pictures,
)

MODULE = "worker.model_main"

_log = logging.getLogger("mlaas.worker")

T = TypeVar("T")

# The least share of a processor that a decoder gets while others are busy, too.
_PROCESSOR_SHARE = 0.2
_SLICE_S = 0.5


class ModelUnavailable(Exception):
    """A model cannot be loaded. Do not retry."""


class ModelDied(Exception):
    """The process ended or was killed. out_of_time: because a picture or batch took too long."""

    def __init__(self, detail: str, *, out_of_time: bool = False) -> None:
        super().__init__(detail)
        self.out_of_time = out_of_time


class IsolatedModel:
    """A model and decoders that are restarted when a picture ends their process. Thread-safe.

    The model process prepares small pictures itself, in batches. Each larger size has a decoder, which its
    first picture starts, so that the model never waits for one. If a batch ends the model process, its
    pictures go through a decoder one by one, which shows the one to blame.
    """

    def __init__(
        self, start_model: Callable[[], "ModelProcess"], start_decoder: Callable[[], "ModelProcess"]
    ) -> None:
        self._model = _RestartingProcess(start_model)
        self._decoders = {size: _RestartingProcess(start_decoder) for size in (Size.MEDIUM, Size.LARGE)}

    @property
    def starts(self) -> int:
        """How often a model process has been started."""
        return self._model.starts

    @property
    def decoder_starts(self) -> int:
        return sum(decoder.starts for decoder in self._decoders.values())

    @property
    def restarts(self) -> int:
        """How often a model process has been started in place of one that had died."""
        return self._model.restarts

    @property
    def decoder_restarts(self) -> int:
        return sum(decoder.restarts for decoder in self._decoders.values())

    def load(self) -> Loaded:
        """What the model process has loaded; starts it first if necessary. Raises ModelUnavailable."""
        return self._model.load()

    def predict(self, pictures: list[Picture | Tensor]) -> Predicted:
        """For tensors and small pictures; outcome i is for input i. Raises ModelDied or ModelUnavailable."""
        return self._model.ask(lambda process: process.predict([*pictures]))

    def predict_alone(self, picture: Picture | Tensor, size: Size) -> Predicted:
        """A picture goes through the decoder of this size, then the model. Raises ModelUnavailable.

        If the picture ends a process, the outcome is the error `internal`, with what happened as its detail.
        """
        try:
            if isinstance(picture, Tensor):
                return self._model.ask_twice(lambda process: process.predict([picture]))
            decoded = self._decoders[size].ask_twice(lambda process: process.decode(picture))
            if (prepared := decoded.prepared) is None:
                return Predicted([Outcome(error=ErrorCode.INVALID_PICTURE, detail=decoded.detail)])
            return self._model.ask_twice(lambda process: process.predict([prepared]))
        except ModelDied as error:
            _log.error("%s over one picture of %d bytes", error, len(picture.content))
            return Predicted([Outcome(error=ErrorCode.INTERNAL, detail=str(error))])

    def close(self) -> None:
        for each in (self._model, *self._decoders.values()):
            each.close()


class _RestartingProcess:
    """Runs one process, and another one after its death.

    Callers take turns, so a process can only die of its caller's picture.
    """

    def __init__(self, start: Callable[[], "ModelProcess"]) -> None:
        self._start = start
        self._process: ModelProcess | None = None
        self._lock = threading.Lock()
        self.loaded: Loaded | None = None
        self.starts = 0

    @property
    def restarts(self) -> int:
        return max(0, self.starts - 1)

    def load(self) -> Loaded:
        """What the most recent process has loaded. Starts the first one; never waits for one that is busy."""
        if self.loaded is not None:
            return self.loaded
        with self._lock:
            return self._running().loaded

    def ask(self, question: Callable[["ModelProcess"], T]) -> T:
        """Raises ModelDied; the next call starts another process."""
        with self._lock:
            process = self._running()
            try:
                return question(process)
            except ModelDied:
                self._close()
                raise

    def ask_twice(self, question: Callable[["ModelProcess"], T]) -> T:
        """As ask, but a process may die of other causes: only a second death counts, or a timeout."""
        try:
            return self.ask(question)
        except ModelDied as error:
            if error.out_of_time:
                raise
            _log.warning("%s over one picture; retrying it once", error)
        return self.ask(question)

    def close(self) -> None:
        with self._lock:
            self._close()

    def _running(self) -> "ModelProcess":
        if self._process is None:
            self._process = self._start()
            self.loaded = self._process.loaded
            self.starts += 1
        return self._process

    def _close(self) -> None:
        if self._process is not None:
            self._process.close()
            self._process = None


class ModelProcess:
    """A child process, ready once this is made: its models are loaded, checked and warm. For one thread."""

    def __init__(
        self,
        settings: ModelSettings,
        *,
        timeout_s: float,
        start_timeout_s: float,
        role: Role = Role.MODEL,
        module: str = MODULE,
    ) -> None:
        """timeout_s: for a batch. Raises ModelUnavailable."""
        self._role = role
        self._unexpected = f"the {role} process sent an unexpected answer"
        self._timeout_s = timeout_s
        ours, theirs = socket.socketpair()
        with theirs:
            # Writing to a process that no longer reads must not block.
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", int(timeout_s) + 1, 0))
            self._connection = Connection(ours.detach())
            arguments = [role.value, str(theirs.fileno()), msgspec.json.encode(settings).decode()]
            # -P: modules in the working directory must not shadow ours.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", module, *arguments],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )
        self.loaded = self._wait_until_loaded(start_timeout_s)

    @property
    def pid(self) -> int:
        return self._process.pid

    def predict(self, pictures: Pictures) -> Predicted:
        """For a model process. Raises ModelDied."""
        predicted = self._ask(pictures, self._timeout_s)
        if not isinstance(predicted, Predicted) or len(predicted.outcomes) != len(pictures):
            raise ModelDied(self._unexpected)
        return predicted

    def decode(self, picture: Picture) -> Decoded:
        """For a decoder. Raises ModelDied."""
        decoded = self._ask([picture], picture.limit_s / _PROCESSOR_SHARE or self._timeout_s)
        if not isinstance(decoded, Decoded):
            raise ModelDied(self._unexpected)
        return decoded

    def close(self) -> None:
        """Close the pipe, which ends the process; kill it if that does not."""
        self._connection.close()
        self._end()

    def _wait_until_loaded(self, timeout_s: float) -> Loaded:
        try:
            loaded = self._answer(timeout_s)
        except ModelDied as error:
            self.close()
            raise ModelUnavailable(f"the {self._role} process did not start: {error}") from error
        if isinstance(loaded, Loaded):
            return loaded
        self.close()
        raise ModelUnavailable(loaded.detail if isinstance(loaded, LoadFailed) else self._unexpected)

    def _ask(self, pictures: Pictures, timeout_s: float) -> Answer:
        try:
            send_pictures(self._connection, pictures)
        except OSError as error:
            raise self._died() from error
        return self._answer(timeout_s)

    def _answer(self, timeout_s: float) -> Answer:
        """Wait in slices, so that time during which this process itself is suspended does not count."""
        left_s = timeout_s
        try:
            while not self._connection.poll(min(left_s, _SLICE_S)):
                left_s -= _SLICE_S
                if left_s <= 0:
                    self._process.kill()
                    detail = f"the {self._role} process did not answer within {timeout_s:g} s"
                    raise ModelDied(detail, out_of_time=True)
            return receive_answer(self._connection)
        except (EOFError, OSError) as error:
            raise self._died() from error

    def _died(self) -> ModelDied:
        code = self._end()
        if code == -signal.SIGPROF:
            detail = f"the {self._role} process exceeded the processor time allowed for a picture"
            return ModelDied(detail, out_of_time=True)
        return ModelDied(f"the {self._role} process ended with code {code}")

    def _end(self) -> int:
        """Wait for the process to end. Returns its exit code, or minus the signal that ended it."""
        try:
            return self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()
