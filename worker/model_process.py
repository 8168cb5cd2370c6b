"""The consumer's end of one model process, from its start to its death."""

import socket
import struct
import subprocess
import sys
from contextlib import ExitStack
from multiprocessing.connection import Connection

import msgspec

from model.settings import ModelSettings
from worker.pipe import Answer, Lane, Loaded, LoadFailed, Picture, Predicted, receive_answer, send_pictures

MODULE = "worker.model_main"


class ModelUnavailable(Exception):
    """A model cannot be loaded; trying again will not help."""


class ModelDied(Exception):
    """The process ended, or was ended because it hung."""


class ModelProcess:
    """Made when every model is loaded, its digest checked, and warm. Each lane is used by one thread."""

    def __init__(
        self, settings: ModelSettings, *, timeout_s: float, start_timeout_s: float, module: str = MODULE
    ) -> None:
        """Raises ModelUnavailable."""
        self._timeout_s = timeout_s
        self._lanes: list[Connection] = []
        with ExitStack() as closing:
            descriptors = [closing.enter_context(self._new_lane()).fileno() for _ in Lane]
            arguments = [*map(str, descriptors), msgspec.json.encode(settings).decode()]
            # -P: a module in the working directory must not take the place of one of ours.
            command = [sys.executable, "-P", "-m", module, *arguments]
            self._process = subprocess.Popen(command, pass_fds=descriptors, stdin=subprocess.DEVNULL)
        self.loaded = self._wait_until_loaded(start_timeout_s)

    @property
    def pid(self) -> int:
        return self._process.pid

    def predict(self, pictures: list[Picture], lane: Lane = Lane.SMALL) -> Predicted:
        """Raises ModelDied."""
        try:
            send_pictures(self._lanes[lane], pictures)
        except OSError as error:
            raise ModelDied(self._last_words()) from error
        predicted = self._answer(lane, self._timeout_s)
        if not isinstance(predicted, Predicted) or len(predicted.outcomes) != len(pictures):
            raise ModelDied("the model process is out of step")
        return predicted

    def close(self) -> None:
        """Closing the pipes ends the process; one that hangs is killed."""
        for lane in self._lanes:
            lane.close()
        self._end()

    def _new_lane(self) -> socket.socket:
        """The process's end."""
        ours, theirs = socket.socketpair()
        # A process that no longer reads must not hold up the one that writes.
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", int(self._timeout_s) + 1, 0))
        self._lanes.append(Connection(ours.detach()))
        return theirs

    def _wait_until_loaded(self, timeout_s: float) -> Loaded:
        try:
            loaded = self._answer(Lane.SMALL, timeout_s)
        except ModelDied as error:
            self.close()
            raise ModelUnavailable(f"the model process did not start: {error}") from error
        if isinstance(loaded, Loaded):
            return loaded
        self.close()
        raise ModelUnavailable(loaded.detail if isinstance(loaded, LoadFailed) else "it is out of step")

    def _answer(self, lane: Lane, timeout_s: float) -> Answer:
        try:
            if not self._lanes[lane].poll(timeout_s):
                self._process.kill()
                raise ModelDied(f"the model process did not answer within {timeout_s:g} s")
            return receive_answer(self._lanes[lane])
        except (EOFError, OSError) as error:
            raise ModelDied(self._last_words()) from error

    def _last_words(self) -> str:
        """A negative code is the number of the signal that ended it."""
        return f"the model process ended with code {self._end()}"

    def _end(self) -> int:
        try:
            return self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()
