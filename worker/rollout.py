"""Takes over what the model folders ask for: looks at them, loads beside what answers, checks, and swaps.

A version that cannot be loaded changes nothing: what answered before goes on answering, and why is reported.
"""

import logging
import os
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from messaging import SHARED
from model import ModelSettings, manifest, serving
from model.manifest import ModelError
from worker.metrics import WorkerMetrics
from worker.model_process import Decoders, IsolatedModel, ModelProcess, ModelUnavailable, Shadow
from worker.pipe import LoadedVersion, ModelVersion, Role
from worker.roster import Plan, Problems, Roster, Snapshot, Stamp, Wanted, decide, held_back, still_failed

_log = logging.getLogger("mlaas.worker")

_LEAVE_S = 2.0

Start = Callable[[Role, Sequence[ModelVersion]], ModelProcess]


def look(settings: ModelSettings, elsewhere: Collection[str] = ()) -> tuple[Wanted, ...]:
    """What the folders of the models ask for now. elsewhere: models that other workers serve."""
    names = [name for name in serving.names(settings) if name not in elsewhere]
    return tuple(_look_at(Path(settings.weights_dir), name) for name in names)


def _look_at(weights_dir: Path, name: str) -> Wanted:
    pointed_at = _stamps([os.path.join(weights_dir, name, serving.FILE)])
    try:
        pointer = serving.current(weights_dir, name)
        known = manifest.versions(weights_dir, name)
    except ModelError as error:
        return Wanted(name, None, trouble=str(error), pointed_at=pointed_at)
    versions = [each for each in (*pointer.named, pointer.previous) if each in known]
    snapshots = {
        each: Snapshot(name, each, _stamps(_files(weights_dir / name / each))) for each in versions if each
    }
    return Wanted(name, pointer, snapshots, pointed_at=pointed_at)


def _files(folder: Path) -> Iterator[str]:
    for at, folders, files in os.walk(folder):
        yield from (os.path.join(at, each) for each in (*folders, *files))


def _stamps(paths: Iterable[str]) -> Stamp:
    found = []
    for path in sorted(paths):
        try:
            its = os.stat(path)
        except OSError:  # there is none, or it has just been removed
            continue
        found.append((path, its.st_size, its.st_mtime_ns))
    return tuple(found)


class Serving(NamedTuple):
    """A roster, and the processes that have its versions."""

    roster: Roster
    models: IsolatedModel
    shadow: Shadow | None = None


class Rollout:
    """Serves what the folders of the models ask for, and takes over their changes meanwhile. Thread-safe."""

    def __init__(
        self,
        settings: ModelSettings,
        start: Start,
        poll_s: float,
        queue: str = SHARED,
        elsewhere: Collection[str] = (),
    ) -> None:
        """start: raises ModelUnavailable. poll_s: how often to look at the folders after watch().

        queue: for the metrics. elsewhere: models that the workers of other queues serve.
        """
        self._settings = settings
        self._start = start
        self._poll_s = poll_s
        self._elsewhere = elsewhere
        self._decoders = Decoders(lambda: start(Role.DECODER, ()))
        self.starts = 0
        """How often a process with models has been started."""
        self._restarts = 0
        self.metrics = WorkerMetrics(queue, lambda: self._restarts, lambda: self._decoders.restarts)
        self._wanted: tuple[Wanted, ...] = ()
        self._plan: Plan = {}
        self._problems: Problems = {}
        self._failed: dict[Snapshot, str] = {}
        self._loaded: Mapping[Snapshot, LoadedVersion] = {}
        self._shadowing: Mapping[Snapshot, LoadedVersion] = {}
        self._serving: Serving | None = None
        self._uses: Counter[IsolatedModel] = Counter()
        self._replaced: list[IsolatedModel] = []
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="rollout", daemon=True)

    @property
    def decoder_starts(self) -> int:
        """How often a decoder has been started."""
        return self._decoders.starts

    def load(self) -> None:
        """Load what the folders ask for. Raises ModelUnavailable if a model fails that must be served."""
        self._adopt(look(self._settings, self._elsewhere))

    def watch(self) -> None:
        """Take over changes of the folders from now on."""
        self._thread.start()

    @contextmanager
    def serving(self) -> Iterator[Serving]:
        """What serves now. It goes on until the end of the block, whatever replaces it meanwhile."""
        with self._lock:
            its = self._serving
            assert its is not None, "load() has not returned yet"
            self._uses[its.models] += 1
        try:
            yield its
        finally:
            with self._lock:
                self._uses[its.models] -= 1

    def close(self) -> None:
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(_LEAVE_S)  # a process that loads ends when this one does
        if (its := self._serving) is not None:
            if its.shadow is not None:
                its.shadow.close()
            its.models.close()
        for models in self._replaced:
            models.close()
        self._decoders.close()

    def _watch(self) -> None:
        """Adopt what two looks in a row agree on, so that files are left alone while they are written."""
        last = self._wanted
        while not self._stopping.wait(self._poll_s):
            try:
                self._close_replaced()
                found = look(self._settings, self._elsewhere)
                if found == last and found != self._wanted:
                    self._adopt(found)
                last = found
            except OSError as error:
                _log.warning("cannot look for changes of the models: %s", error)
            except Exception:  # what is served goes on
                _log.exception("cannot take over a change of the models")

    def _adopt(self, wanted: tuple[Wanted, ...]) -> None:
        """Serve what is wanted, as far as it can be loaded. Raises ModelUnavailable at the start."""
        self._failed = still_failed(self._failed, wanted, self._wanted)
        self._wanted = wanted
        ready = self._make_ready(wanted)
        if self._stopping.is_set():
            _close(ready.models.process, ready.shadow.process)
        else:
            self._report(ready.plan, ready.problems, ready.models.loaded)
            self._take_over(ready)

    def _make_ready(self, wanted: Sequence[Wanted]) -> "_Ready":
        """Start processes until one has loaded all that is planned, without what has failed meanwhile."""
        models = as_before = _Started(None, self._loaded)
        shadow = shadow_as_before = _Started(None, self._shadowing)
        while True:
            plan, problems = decide(wanted, self._plan, self._failed)
            if self._serving is None and (lacking := self._lacking(plan, problems)):
                _close(models.process, shadow.process)
                raise ModelUnavailable(lacking)
            answering, shadows = _answering(plan), _shadows(plan)
            if changed := self._failed.keys() & {*answering, *shadows}:
                # Files of what is served have changed: only the processes that have it can go on with it.
                _close(models.process, shadow.process)
                problems |= held_back(plan, self._plan, changed)
                return _Ready(self._plan, problems, as_before, shadow_as_before)
            if not models.loaded.keys() >= {*answering}:
                _close(models.process)
                models = self._try(Role.MODEL, answering)
            elif not shadow.loaded.keys() >= {*shadows}:
                _close(shadow.process)
                shadow = self._try(Role.SHADOW, shadows)
            else:
                return _Ready(plan, problems, models, shadow)

    def _take_over(self, ready: "_Ready") -> None:
        before = self._serving
        answering, shadows = _answering(ready.plan), _shadows(ready.plan)
        shadow = before.shadow if before and shadows else None
        if (process := ready.shadow.process) is not None:
            shadow = Shadow(partial(self._again, Role.SHADOW, shadows), process, self.metrics.compared)
        if (process := ready.models.process) is not None:
            models = IsolatedModel(partial(self._again, Role.MODEL, answering), self._decoders, process)
        else:
            assert before is not None, "what is required is loaded"
            models = before.models
        folder = f"{self._settings.weights_dir}/"
        problems = {of: why.replace(folder, "") for of, why in ready.problems.items()}  # callers see no paths
        loaded = [*ready.models.loaded.values(), *ready.shadow.loaded.values()]
        roster = Roster(ready.plan, loaded, self._settings.default_name, problems)
        with self._lock:
            self._serving = Serving(roster, models, shadow)
            if before is not None and before.models is not models:
                self._replaced.append(before.models)
        if before is not None and before.shadow not in (None, shadow):
            before.shadow.close()
        self._plan, self._problems = ready.plan, ready.problems
        self._loaded, self._shadowing = ready.models.loaded, ready.shadow.loaded

    def _lacking(self, plan: Plan, problems: Problems) -> str:
        """Why a model that must be served, since it is named or the default, is not; empty if all are."""
        for name in self._settings.names or [self._settings.default_name]:
            if name not in plan:
                why = next(why for (of, _), why in problems.items() if of == name)
                return why if self._settings.names else f"{why}; model.default names the default model"
        return ""

    def _try(self, role: Role, snapshots: Sequence[Snapshot]) -> "_Started":
        """Start a process. Returns it with what it has loaded, and notes what has failed."""
        try:
            process = self._started(role, snapshots)
        except ModelUnavailable as error:
            culprits = [each for each in snapshots if each.key == error.culprit]
            unproven = [each for each in snapshots if each not in self._loaded]
            self._failed |= dict.fromkeys(culprits or unproven or snapshots, str(error))
            return _Started(None, {})
        loaded = {(each.model.name, each.model.version): each for each in process.loaded.versions}
        reasons = dict(process.loaded.failures)
        for each in snapshots:
            if each.key not in loaded:
                self._failed[each] = reasons.get(each.key, f"the {role} process has not loaded it")
        return _Started(process, {each: loaded[each.key] for each in snapshots if each.key in loaded})

    def _again(self, role: Role, snapshots: Sequence[Snapshot]) -> ModelProcess:
        """Start a process in the place of one that has died. Raises ModelUnavailable."""
        self._restarts += 1
        process = self._started(role, snapshots)
        for _, reason in process.loaded.failures:
            process.close()
            raise ModelUnavailable(reason)
        return process

    def _started(self, role: Role, snapshots: Sequence[Snapshot]) -> ModelProcess:
        with self._lock:
            self.starts += 1
        return self._start(role, [each.key for each in snapshots])

    def _report(self, plan: Plan, problems: Problems, loaded: Mapping[Snapshot, LoadedVersion]) -> None:
        """Log what is new, and set the metrics."""
        for its in loaded.keys() - self._loaded.keys():
            _log.info("%s %s (%s) is warm", its.name, its.version, loaded[its].model.runtime)
        for name in {**self._plan, **plan}:
            if (roles := plan.get(name)) != self._plan.get(name):
                _log.info("%s", f"{name}: {roles.in_words}" if roles else f"{name} is no longer served")
        for (name, version), why in problems.items():
            if self._problems.get((name, version)) != why:
                _log.error("%s cannot be served: %s", f"{name} {version}".strip(), why)
        shares = {its.key: share for roles in plan.values() for its, share in roles.shares.items()}
        self.metrics.serving([each.model for each in loaded.values()], shares, problems)

    def _close_replaced(self) -> None:
        """Close the processes that have been replaced, once nobody uses them."""
        with self._lock:
            unused = [models for models in self._replaced if not self._uses[models]]
            for models in unused:
                self._replaced.remove(models)
                del self._uses[models]
        _close(*unused)


class _Started(NamedTuple):
    """What is loaded, and the process that has it: None if that serves already, or nothing can be loaded."""

    process: ModelProcess | None
    loaded: Mapping[Snapshot, LoadedVersion]


class _Ready(NamedTuple):
    """A plan, and the processes that can serve it. problems: why it is not all that is wanted."""

    plan: Plan
    problems: Problems
    models: _Started
    shadow: _Started


def _answering(plan: Plan) -> list[Snapshot]:
    return [each for roles in plan.values() for each in roles.answering]


def _shadows(plan: Plan) -> list[Snapshot]:
    return [roles.shadow for roles in plan.values() if roles.shadow]


def _close(*processes: ModelProcess | IsolatedModel | None) -> None:
    for each in processes:
        if each is not None:
            each.close()
