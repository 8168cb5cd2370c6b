"""Which versions of the models answer: what is wanted, what that comes to, and who answers a request.

Everything here decides and does nothing; worker/rollout.py looks at the folders and runs the processes.
"""

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from messaging.contract import (
    Agreement,
    ContractError,
    ErrorCode,
    Request,
    ServedModel,
    ServedVersion,
    UnservedModel,
    cannot_be_served,
    no_such_model,
)
from model import manifest
from model.manifest import Preparation
from model.serving import Pointer
from worker.pipe import LoadedVersion, ModelVersion

Problems = Mapping[ModelVersion, str]
"""Why versions that are wanted are not served; of a model as a whole, the version is empty."""

Stamp = tuple[tuple[str, int, int], ...]
"""Path, size and time of each file of a folder. It changes when one of them does."""


class Snapshot(NamedTuple):
    """A version of a model as the files of its folder are at one time."""

    name: str
    version: str
    stamp: Stamp

    @property
    def key(self) -> ModelVersion:
        return self.name, self.version


class Wanted(NamedTuple):
    """What the folder of a model asks for. Without a pointer, trouble says why there is none.

    snapshots: by version, those of the pointer's that have a folder. pointed_at: the pointer's file.
    """

    name: str
    pointer: Pointer | None
    snapshots: Mapping[str, Snapshot] = {}
    trouble: str = ""
    pointed_at: Stamp = ()


class Roles(NamedTuple):
    """The snapshots of a model that is served. canary answers percent of the requests, main the others."""

    main: Snapshot
    canary: Snapshot | None = None
    percent: int = 0
    shadow: Snapshot | None = None

    @property
    def answering(self) -> list[Snapshot]:
        return [each for each in (self.main, self.canary) if each is not None]

    @property
    def shares(self) -> dict[Snapshot, int]:
        """Percent of the requests that name no version: 0 for a shadow."""
        found = {self.main: 100 - self.percent}
        if self.canary is not None:
            found[self.canary] = self.percent
        if self.shadow is not None:
            found.setdefault(self.shadow, 0)
        return found

    @property
    def in_words(self) -> str:
        """Such as: 1.4.0 answers 90 %, 1.5.0 answers 10 %, 1.6.0 is compared."""
        its = {each.version: share for each, share in self.shares.items()}
        return ", ".join(
            f"{version} answers {share} %" if share else f"{version} is compared"
            for version, share in sorted(its.items(), key=lambda each: -each[1])
        )


Plan = Mapping[str, Roles]
"""By the model's name, the default first."""


def decide(
    wanted: Sequence[Wanted], serves: Plan, failed: Mapping[Snapshot, str]
) -> tuple[dict[str, Roles], dict[ModelVersion, str]]:
    """What to serve, and the problems, if these snapshots cannot be loaded.

    A model whose version cannot be loaded keeps the roles that it has or, at the start, gets the previous
    version, if the pointer names one.
    """
    plan: dict[str, Roles] = {}
    problems: dict[ModelVersion, str] = {}
    for each in wanted:
        roles = _roles(each, serves.get(each.name), failed, problems)
        if roles is not None:
            plan[each.name] = roles
    return plan, problems


def _roles(
    wanted: Wanted, before: Roles | None, failed: Mapping[Snapshot, str], problems: dict[ModelVersion, str]
) -> Roles | None:
    def usable(version: str | None) -> Snapshot | None:
        if version is None:
            return None
        snapshot = wanted.snapshots.get(version)
        if snapshot is None:
            problems[wanted.name, version] = f"{wanted.name}/{version} has no {manifest.FILE}"
        elif snapshot in failed:
            problems[wanted.name, version] = failed[snapshot]
        else:
            return snapshot
        return None

    pointer = wanted.pointer
    if pointer is None:
        problems[wanted.name, ""] = wanted.trouble
        return before
    main = usable(pointer.version)
    if main is None:
        if before is None and (previous := usable(pointer.previous)) is not None:
            return Roles(previous)
        return before
    share = pointer.share
    canary = usable(share.version) if share else None
    return Roles(main, canary, share.percent if share and canary else 0, usable(pointer.shadow))


def still_failed(
    failed: Mapping[Snapshot, str], wanted: Sequence[Wanted], before: Sequence[Wanted]
) -> dict[Snapshot, str]:
    """Without those to try again: their files have changed, or their pointer has been written again."""
    pointed_at = {each.name: each.pointed_at for each in before}
    same = [each for each in wanted if pointed_at.get(each.name) == each.pointed_at]
    return {its: failed[its] for each in same for its in each.snapshots.values() if its in failed}


def held_back(plan: Plan, serves: Plan, changed: Collection[Snapshot]) -> dict[ModelVersion, str]:
    """The problems of what the plan would add, while files have changed of versions that are served."""
    which = ", ".join(sorted(f"{each.name} {each.version}" for each in changed))
    why = f"it waits until the files of {which}, which changed while being served, are restored or removed"
    served = {its for roles in serves.values() for its in roles.shares}
    wanted = [its for roles in plan.values() for its in roles.shares]
    return {its.key: why for its in wanted if its not in served}


class Roster:
    """The versions that answer, and which of them answers a request."""

    def __init__(
        self, plan: Plan, loaded: Sequence[LoadedVersion], default: str, problems: Problems | None = None
    ) -> None:
        """loaded: at least the versions of the plan."""
        self._default = default
        self._plan = plan
        self._problems = problems or {}
        self._loaded = {(each.model.name, each.model.version): each for each in loaded}

    @classmethod
    def of(cls, loaded: Sequence[LoadedVersion]) -> "Roster":
        """Each model answers alone; the first is the default."""
        models = [each.model for each in loaded]
        plan = {model.name: Roles(Snapshot(model.name, model.version, ())) for model in models}
        return cls(plan, loaded, models[0].name)

    @property
    def default(self) -> ServedModel:
        return self._model(self._plan[self._default].main)

    def choose(self, request: Request) -> ServedModel:
        """The version that answers: the one that the request names, or the one that its id falls to.

        A request that is delivered again meets the same version. Raises ContractError.
        """
        name = request.model or self._default
        roles = self._plan.get(name)
        if roles is None or request.version not in ("", *(each.version for each in roles.answering)):
            raise ContractError(self._missing(name, request.version), ErrorCode.UNKNOWN_MODEL)
        if request.version:
            return self._loaded[name, request.version].model
        if roles.canary is not None and percentile(name, request.correlation_id) < roles.percent:
            return self._model(roles.canary)
        return self._model(roles.main)

    def preparation(self, model: ServedModel) -> Preparation | None:
        """How decoders prepare a picture for it."""
        return self._loaded[model.name, model.version].preparation

    def shadow_of(self, model: ServedModel) -> ModelVersion | None:
        """The version that is compared with it, if there is one."""
        roles = self._plan[model.name]
        return roles.shadow.key if roles.shadow and roles.main.version == model.version else None

    def described(
        self, agreement: Callable[[ModelVersion], Agreement] = lambda _: Agreement()
    ) -> list[ServedModel]:
        """What the worker reports: one entry for each model, the default first. agreement: of a shadow."""
        return [self._described(name, roles, agreement) for name, roles in self._plan.items()]

    def unserved(self) -> list[UnservedModel]:
        """The models of which no version could be loaded, and why."""
        found: dict[str, list[ServedVersion]] = {}
        for (name, version), problem in self._problems.items():
            if name not in self._plan:
                found.setdefault(name, []).append(ServedVersion(version=version, problem=problem))
        return [UnservedModel(name=name, versions=versions) for name, versions in found.items()]

    def _described(
        self, name: str, roles: Roles, agreement: Callable[[ModelVersion], Agreement]
    ) -> ServedModel:
        versions: dict[str, ServedVersion] = {}
        for its, percent in roles.shares.items():
            model = self._model(its)
            versions[its.version] = ServedVersion(
                version=its.version,
                share_percent=percent,
                shadow=agreement(its.key) if its == roles.shadow else None,
                sha256=model.sha256,
                accuracy=model.accuracy,
            )
        for (of, version), problem in self._problems.items():
            if of == name:
                version = version or roles.main.version
                known = versions.get(version, ServedVersion(version=version))
                versions[version] = replace(known, problem=problem)
        main = self._model(roles.main)
        return replace(main, default=name == self._default, versions=[*versions.values()])

    def _model(self, snapshot: Snapshot) -> ServedModel:
        return self._loaded[snapshot.key].model

    def _missing(self, name: str, version: str) -> str:
        for (of, which), problem in self._problems.items():
            if of == name and (version in ("", which) or (not which and of not in self._plan)):
                return cannot_be_served(of, which, problem)
        return no_such_model(name, version, self.described())


def percentile(name: str, correlation_id: str) -> int:
    """Which of a hundred equal parts of a model's requests an id falls into: from 0, always the same one."""
    digest = hashlib.blake2b(f"{name} {correlation_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) % 100
