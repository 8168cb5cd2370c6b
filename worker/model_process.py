"""The consumer's end of its processes: from the start of one to its death, and the one that replaces it."""

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
    receive_answer,
    send_pictures,
)

MODULE = "worker.model_main"

_log = logging.getLogger("mlaas.worker")

T = TypeVar("T")

# A decoder's processor time passes slowly while others have the processors.
_SHARE_OF_PROCESSOR = 0.2
_SLICE_S = 0.5


class ModelUnavailable(Exception):
    """A model cannot be loaded; trying again will not help."""


class ModelDied(Exception):
    """The process ended, or was ended. out_of_time: because its work took longer than it may."""

    def __init__(self, detail: str, *, out_of_time: bool = False) -> None:
        super().__init__(detail)
        self.out_of_time = out_of_time


class ModelProcess:
    """Made when the process is ready: every model loaded, its digest checked, and warm. For one thread."""

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
        self._timeout_s = timeout_s
        ours, theirs = socket.socketpair()
        with theirs:
            # A process that no longer reads must not block the one that writes.
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", int(timeout_s) + 1, 0))
            self._connection = Connection(ours.detach())
            arguments = [role.value, str(theirs.fileno()), msgspec.json.encode(settings).decode()]
            # -P: a module in the working directory must not take the place of one of ours.
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
        """By the process with the models. Raises ModelDied."""
        predicted = self._ask(pictures, self._timeout_s)
        if not isinstance(predicted, Predicted) or len(predicted.outcomes) != len(pictures):
            raise ModelDied(f"the {self._role} process is out of step")
        return predicted

    def decode(self, picture: Picture) -> Decoded:
        """By a decoder. Raises ModelDied."""
        decoded = self._ask([picture], picture.limit_s / _SHARE_OF_PROCESSOR or self._timeout_s)
        if not isinstance(decoded, Decoded):
            raise ModelDied(f"the {self._role} process is out of step")
        return decoded

    def close(self) -> None:
        """Closing the pipe ends the process; one that hangs is killed."""
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
        raise ModelUnavailable(loaded.detail if isinstance(loaded, LoadFailed) else "it is out of step")

    def _ask(self, pictures: Pictures, timeout_s: float) -> Answer:
        try:
            send_pictures(self._connection, pictures)
        except OSError as error:
            raise self._died() from error
        return self._answer(timeout_s)

    def _answer(self, timeout_s: float) -> Answer:
        """Waits in slices: while this process is stopped, or has no processor, the time does not count."""
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
        """A negative code is the number of the signal that ended it."""
        code = self._end()
        if code == -signal.SIGPROF:
            detail = f"the {self._role} process used up the processor time that a picture may take"
            return ModelDied(detail, out_of_time=True)
        return ModelDied(f"the {self._role} process ended with code {code}")

    def _end(self) -> int:
        try:
            return self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


class _Replaced:
    """One process after the other. One caller at a time: no other's picture can have ended it."""

    def __init__(self, start: Callable[[], ModelProcess]) -> None:
        self._start = start
        self._process: ModelProcess | None = None
        self._lock = threading.Lock()
        self.loaded: Loaded | None = None
        self.starts = 0

    def load(self) -> Loaded:
        """What the last one has loaded; starts the first. Does not wait for one at work."""
        if self.loaded is not None:
            return self.loaded
        with self._lock:
            return self._running().loaded

    def ask(self, ask: Callable[[ModelProcess], T]) -> T:
        """Raises ModelDied: the next caller gets another process."""
        with self._lock:
            process = self._running()
            try:
                return ask(process)
            except ModelDied:
                self._close()
                raise

    def ask_twice(self, ask: Callable[[ModelProcess], T]) -> T:
        """Processes are killed for other reasons, too: a picture did it if it ends two, or takes too long."""
        try:
            return self.ask(ask)
        except ModelDied as error:
            if error.out_of_time:
                raise
            _log.warning("%s, over one picture; trying it once more", error)
        return self.ask(ask)

    def close(self) -> None:
        with self._lock:
            self._close()

    def _running(self) -> ModelProcess:
        if self._process is None:
            self._process = self._start()
            self.loaded = self._process.loaded
            self.starts += 1
        return self._process

    def _close(self) -> None:
        if self._process is not None:
            self._process.close()
            self._process = None


class IsolatedModel:
    """A model that outlives the pictures that end its process, and decoders that outlive theirs.

    Small pictures are prepared in batches, where the model is. For each larger size there is a decoder, which
    the model never waits for. The pictures of a batch that ended the model's process go there, too, one by
    one: that shows which of them did.
    """

    def __init__(
        self, start_model: Callable[[], ModelProcess], start_decoder: Callable[[], ModelProcess]
    ) -> None:
        self._model = _Replaced(start_model)
        self._decoders = {size: _Replaced(start_decoder) for size in (Size.MEDIUM, Size.LARGE)}

    @property
    def starts(self) -> int:
        """How often a process with the models was started."""
        return self._model.starts

    @property
    def decoder_starts(self) -> int:
        return sum(decoder.starts for decoder in self._decoders.values())

    def load(self) -> Loaded:
        """Raises ModelUnavailable."""
        return self._model.load()

    def start_decoder(self, size: Size) -> None:
        """Before the first picture needs it. Raises ModelUnavailable."""
        self._decoders[size].load()

    def predict(self, pictures: list[Picture]) -> Predicted:
        """Of small ones, outcome i is picture i's. Raises ModelDied, and ModelUnavailable."""
        return self._model.ask(lambda process: process.predict([*pictures]))

    def predict_alone(self, picture: Picture, size: Size) -> Predicted:
        """By the size's decoder, and then by the model. Raises ModelUnavailable.

        A picture that ends the process gets the error `internal`, with what happened as its detail.
        """
        try:
            decoded = self._decoders[size].ask_twice(lambda process: process.decode(picture))
            if (prepared := decoded.prepared) is None:
                return Predicted([Outcome(error=ErrorCode.INVALID_PICTURE, detail=decoded.detail)])
            return self._model.ask_twice(lambda process: process.predict([prepared]))
        except ModelDied as error:
            _log.error("%s, over one picture of %d bytes", error, len(picture.content))
            return Predicted([Outcome(error=ErrorCode.INTERNAL, detail=str(error))])

    def close(self) -> None:
        for each in (self._model, *self._decoders.values()):
            each.close()
