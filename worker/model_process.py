"""Runs the model and the decoders in child processes, so that a picture that ends one costs a restart."""

import logging
import math
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing.connection import Connection
from typing import NamedTuple, TypeVar

import msgspec

from messaging.contract import ErrorCode
from messaging.picture_header import Size
from model import ModelSettings
from worker.metrics import Agreed
from worker.pipe import (
    Answer,
    Assignment,
    Decoded,
    Loaded,
    Loading,
    ModelVersion,
    Outcome,
    Picture,
    PictureMemory,
    Pictures,
    Predicted,
    PreparedPicture,
    Role,
    StandardError,
    Tensor,
    receive_answer,
    said,
    send_pictures,
)

MODULE = "worker.model_main"

_log = logging.getLogger("mlaas.worker")

T = TypeVar("T")

# The least share of a processor that a decoder gets while others are busy, too.
_PROCESSOR_SHARE = 0.2
_SLICE_S = 0.5

# What waits for a shadow: a second of many small pictures, or some large ones.
_MOST_WAITING, _MOST_WAITING_BYTES = 64, 16_777_216
_TOGETHER = 8
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0
_CLOSE = 1e-3


def _nothing() -> None:
    pass


class ModelUnavailable(Exception):
    """A process cannot start. Do not retry. culprit: the version over which it ended, if it is known."""

    def __init__(self, detail: str, culprit: ModelVersion | None = None) -> None:
        super().__init__(detail)
        self.culprit = culprit


class ModelDied(Exception):
    """The process ended or was killed. out_of_time: because a picture or batch took too long."""

    def __init__(self, detail: str, *, out_of_time: bool = False) -> None:
        super().__init__(detail)
        self.out_of_time = out_of_time


class Decoders:
    """A decoder for each size but small, started by the first picture of that size. Thread-safe."""

    def __init__(self, start: Callable[[], "ModelProcess"]) -> None:
        self._of_size = {size: _RestartingProcess(start) for size in (Size.MEDIUM, Size.LARGE)}

    @property
    def starts(self) -> int:
        """How often one has been started."""
        return sum(decoder.starts for decoder in self._of_size.values())

    @property
    def restarts(self) -> int:
        """How often one has been started in place of one that had died."""
        return sum(decoder.restarts for decoder in self._of_size.values())

    def decode(self, picture: Picture, size: Size, meanwhile: Callable[[], object]) -> Decoded:
        """Raises ModelDied if the picture ends two processes, or one by taking too long.

        meanwhile: called once the process has the picture.
        """
        return self._of_size[size].ask_twice(lambda process: process.decode(picture, meanwhile))

    def close(self) -> None:
        for decoder in self._of_size.values():
            decoder.close()


class IsolatedModel:
    """Models whose process is restarted when a picture ends it. Thread-safe.

    The model process prepares small pictures itself. Larger ones come from decoders, so that the model never
    waits for one. If a batch ends the model process, its pictures go through a decoder one by
    one, which shows the one to blame.
    """

    def __init__(
        self,
        start: Callable[[], "ModelProcess"],
        decoders: Decoders,
        process: "ModelProcess | None" = None,
    ) -> None:
        """process: one that start() has made already."""
        self._model = _RestartingProcess(start, process)
        self._decoders = decoders

    def predict(
        self, pictures: Sequence[Picture | Tensor], meanwhile: Callable[[], object] = _nothing
    ) -> Predicted:
        """For tensors and small pictures; outcome i is for input i. Raises ModelDied or ModelUnavailable.

        meanwhile: called while the process is busy or starts, and once it has the pictures.
        """
        return self._model.ask(lambda process: process.predict([*pictures], meanwhile), meanwhile)

    def prepare(
        self, picture: Picture | Tensor, size: Size, meanwhile: Callable[[], object] = _nothing
    ) -> PreparedPicture | Tensor | Outcome:
        """In the decoder of this size; a tensor needs none. An outcome says what is wrong with the picture.

        meanwhile: called once the decoder has the picture.
        If the picture ends the decoder, that is the error `internal`, with what happened as its detail.
        """
        if isinstance(picture, Tensor):
            return picture
        try:
            decoded = self._decoders.decode(picture, size, meanwhile)
        except ModelDied as error:
            _log.error("%s over one picture of %d bytes", error, len(picture.content))
            return Outcome(error=ErrorCode.INTERNAL, detail=str(error))
        return decoded.prepared or Outcome(error=ErrorCode.INVALID_PICTURE, detail=decoded.detail)

    def predict_alone(self, prepared: PreparedPicture | Tensor) -> Outcome:
        """As predict, but `internal` if it ends the process. Raises ModelUnavailable."""
        try:
            (outcome,) = self._model.ask_twice(lambda process: process.predict([prepared])).outcomes
        except ModelDied as error:
            _log.error("%s over one picture", error)
            return Outcome(error=ErrorCode.INTERNAL, detail=str(error))
        return outcome

    def close(self) -> None:
        self._model.close()


class Shadow:
    """Models that say what they make of what others answer, to compare. Thread-safe; nobody waits for them.

    What the queue has no room for is skipped. If an input ends the process, those of its batch have failed,
    and the process pauses before it starts again: a second at first, twice as long each time, up to a minute.
    """

    def __init__(
        self,
        start: Callable[[], "ModelProcess"],
        process: "ModelProcess",
        count: Callable[[ModelVersion, Agreed], None],
    ) -> None:
        """process: one that start() has made already. count is called for each picture, in any thread."""
        self._labels = {
            (each.model.name, each.model.version): each.model.labels for each in process.loaded.versions
        }
        self._models = _RestartingProcess(start, process)
        self._count = count
        self._changed = threading.Condition()
        self._waiting: deque[_Compared] = deque()
        self._waiting_bytes = 0
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="shadow", daemon=True)
        self._thread.start()

    def offer(self, its_input: Picture | Tensor, answer: str | list[float]) -> None:
        """Have it say what it makes of an input, if it is not behind. answer: see worker.pipe.said()."""
        size = len(its_input.content)
        with self._changed:
            fits = len(self._waiting) < _MOST_WAITING and self._waiting_bytes + size <= _MOST_WAITING_BYTES
            fits = fits and not self._closed
            if fits:
                self._waiting.append(_Compared(its_input, answer))
                self._waiting_bytes += size
                self._changed.notify_all()
        if not fits:
            self._count(its_input.model, Agreed.SKIPPED)

    def close(self) -> None:
        """Finish the batch in hand and skip the others."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()
        self._models.close()

    def _run(self) -> None:
        pause_s = _FIRST_PAUSE_S
        while batch := self._take():
            inputs: Pictures = [each.its_input for each in batch]
            try:
                outcomes = self._models.ask(partial(ModelProcess.predict, pictures=inputs)).outcomes
            except (ModelDied, ModelUnavailable) as error:
                _log.warning("%s; it starts again in %g s", error, pause_s)
                outcomes = [Outcome(error=ErrorCode.INTERNAL)] * len(batch)
                with self._changed:
                    self._changed.wait_for(lambda: self._closed, pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            else:
                pause_s = _FIRST_PAUSE_S
            for each, outcome in zip(batch, outcomes, strict=True):
                model = each.its_input.model
                self._count(model, _agreed(each.answer, outcome, self._labels[model]))

    def _take(self) -> list["_Compared"]:
        """Wait for inputs. Empty once this is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if self._closed:
                return []
            taken = [self._waiting.popleft() for _ in range(min(len(self._waiting), _TOGETHER))]
            self._waiting_bytes -= sum(len(each.its_input.content) for each in taken)
            return taken


class _Compared(NamedTuple):
    its_input: Picture | Tensor
    answer: str | list[float]


def _agreed(answer: str | list[float], outcome: Outcome, labels: Sequence[str]) -> Agreed:
    if outcome.error is not None:
        return Agreed.FAILED
    other = said(labels, outcome)
    if isinstance(answer, str) or isinstance(other, str):
        return Agreed.SAME if answer == other else Agreed.OTHER
    close = len(answer) == len(other) and all(map(_is_close, answer, other))
    return Agreed.SAME if close else Agreed.OTHER


def _is_close(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=_CLOSE, abs_tol=_CLOSE)


class _RestartingProcess:
    """Runs one process, and another one after its death.

    Callers take turns, so a process can only die of its caller's picture.
    """

    def __init__(self, start: Callable[[], "ModelProcess"], process: "ModelProcess | None" = None) -> None:
        self._start = start
        self._process = process
        self._lock = threading.Lock()
        self.starts = 0

    @property
    def restarts(self) -> int:
        return max(0, self.starts - 1)

    def ask(self, question: Callable[["ModelProcess"], T], meanwhile: Callable[[], object] = _nothing) -> T:
        """Raises ModelDied; the next call starts another process.

        meanwhile: called before it waits for other callers or for a process to start.
        """
        if not self._lock.acquire(blocking=False):
            meanwhile()
            self._lock.acquire()
        try:
            if self._process is None:
                meanwhile()
            return question(self._running())
        except ModelDied:
            self._close()
            raise
        finally:
            self._lock.release()

    def ask_twice(self, question: Callable[["ModelProcess"], T]) -> T:
        """As ask, but a process may die of other causes, even while it starts: the second time counts."""
        try:
            return self.ask(question)
        except ModelUnavailable as error:
            _log.warning("%s; starting another", error)
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
            self.starts += 1
        return self._process

    def _close(self) -> None:
        if self._process is not None:
            self._process.close()
            self._process = None


class ModelProcess:
    """A child process, ready once this is made: what it could load is checked and warm. For one thread."""

    def __init__(
        self,
        settings: ModelSettings,
        versions: Sequence[ModelVersion] = (),
        *,
        timeout_s: float,
        start_timeout_s: float,
        role: Role = Role.MODEL,
        module: str = MODULE,
    ) -> None:
        """versions: to load; `loaded` says of which that failed. timeout_s: for a batch. start_timeout_s: for
        each version. Raises ModelUnavailable.
        """
        self._role = role
        self._unexpected = f"the {role} process sent an unexpected answer"
        self._timeout_s = timeout_s
        self._memory = PictureMemory() if role == Role.DECODER else None
        shared = self._memory.descriptor if self._memory else None
        ours, theirs = socket.socketpair()
        with theirs:
            # Writing to a process that no longer reads must not block.
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", int(timeout_s) + 1, 0))
            self._connection = Connection(ours.detach())
            assignment = msgspec.json.encode(Assignment(settings, versions, shared)).decode()
            arguments = [role.value, str(theirs.fileno()), assignment]
            # -P: modules in the working directory must not shadow ours.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", module, *arguments],
                pass_fds=[each for each in (theirs.fileno(), shared) if each is not None],
                stdin=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                bufsize=0,
            )
        assert self._process.stderr
        self._stderr = StandardError(role, self._process.stderr)
        self.loaded = self._wait_until_loaded(start_timeout_s)

    @property
    def pid(self) -> int:
        return self._process.pid

    def predict(self, pictures: Pictures, meanwhile: Callable[[], object] = _nothing) -> Predicted:
        """For a model process. Raises ModelDied. meanwhile: called once it has the pictures."""
        predicted = self._ask(pictures, self._timeout_s, meanwhile)
        if not isinstance(predicted, Predicted) or len(predicted.outcomes) != len(pictures):
            raise ModelDied(self._unexpected)
        return predicted

    def decode(self, picture: Picture, meanwhile: Callable[[], object] = _nothing) -> Decoded:
        """For a decoder. Raises ModelDied. meanwhile: called once it has the picture."""
        assert self._memory
        try:
            handed = self._memory.put(picture)
        except OSError as error:
            raise ModelDied(f"there is no memory for a picture: {error}") from error
        decoded = self._ask([handed], picture.limit_s / _PROCESSOR_SHARE or self._timeout_s, meanwhile)
        if not isinstance(decoded, Decoded):
            raise ModelDied(self._unexpected)
        return decoded

    def close(self) -> None:
        """Close the pipe, which ends the process; kill it if that does not."""
        self._connection.close()
        self._end()

    def _wait_until_loaded(self, timeout_s: float) -> Loaded:
        culprit: ModelVersion | None = None
        try:
            while isinstance(answer := self._answer(timeout_s), Loading):
                culprit = answer.version
        except ModelDied as error:
            self.close()
            over = f", loading {' '.join(culprit)}" if culprit else ""
            raise ModelUnavailable(
                f"the {self._role} process did not start{over}: {error}", culprit
            ) from error
        if isinstance(answer, Loaded):
            return answer
        self.close()
        raise ModelUnavailable(self._unexpected)

    def _ask(
        self, pictures: Pictures, timeout_s: float, meanwhile: Callable[[], object] = _nothing
    ) -> Answer:
        try:
            send_pictures(self._connection, pictures)
        except OSError as error:
            raise self._died() from error
        meanwhile()
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
            code = self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        if self._memory:
            self._memory.close()
        self._stderr.wait(1.0)
        return code
