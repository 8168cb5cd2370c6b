"""Which versions of a model are served: the file that points to them, weights/<name>/serving.yaml.

Without it, the latest version answers. With it, a later folder changes nothing until the file names it.
"""

from functools import lru_cache
from pathlib import Path
from typing import Annotated

import msgspec
import yaml

from model import ModelSettings
from model import manifest as manifests
from model.manifest import ModelError, Version

FILE = "serving.yaml"
MAX_BYTES = 65_536


class Share(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A version that answers this share of the requests that name no version."""

    version: Version
    percent: Annotated[int, msgspec.Meta(ge=1, le=99)]


class Pointer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """The versions of a model by what they do.

    version answers, except for what share takes. shadow classifies the same pictures, and its answers are
    only compared. previous: what rollback goes back to.
    """

    version: Version
    share: Share | None = None
    shadow: Version | None = None
    previous: Version | None = None

    def __post_init__(self) -> None:
        if self.share is not None and self.share.version == self.version:
            raise ValueError(f"{self.version} answers already and cannot have a share of its own")
        if self.shadow == self.version:
            raise ValueError(f"{self.version} answers already and cannot be its own shadow")

    @property
    def named(self) -> tuple[str, ...]:
        """The versions that are to be loaded."""
        share = self.share.version if self.share else None
        return tuple(version for version in (self.version, share, self.shadow) if version is not None)

    @property
    def in_words(self) -> str:
        """Such as: 1.4.0 answers 90 %, 1.5.0 answers 10 %."""
        parts = [f"{self.version} answers"]
        if self.share is not None:
            percent = self.share.percent
            parts = [f"{self.version} answers {100 - percent} %", f"{self.share.version} answers {percent} %"]
        if self.shadow is not None:
            parts.append(f"{self.shadow} is its shadow")
        return ", ".join(parts)


def read(weights_dir: Path, name: str) -> Pointer | None:
    """The file of a model; None if there is none. Raises ModelError."""
    path = weights_dir / name / FILE
    if not path.exists():
        return None
    return manifests.read_yaml(path, Pointer, MAX_BYTES, "does not say which versions are served")


def current(weights_dir: Path, name: str) -> Pointer:
    """As the file says or, without it, the latest version. Raises ModelError."""
    latest = manifests.folder(weights_dir, name).name
    return read(weights_dir, name) or Pointer(version=latest)


def write(weights_dir: Path, name: str, pointer: Pointer) -> None:
    """Writes the file atomically."""
    text = yaml.safe_dump(msgspec.to_builtins(pointer), sort_keys=False)
    manifests.replace(weights_dir / name / FILE, text.encode())


def promoted(before: Pointer, version: str) -> Pointer:
    """The version answers alone."""
    previous = before.previous if version == before.version else before.version
    return Pointer(version=version, previous=previous)


def shared(before: Pointer, version: str, percent: int) -> Pointer:
    """The version answers this share. Raises ModelError if it answers already."""
    shadow = None if before.shadow == version else before.shadow
    _differs(before, version)
    share = Share(version, percent)
    return Pointer(version=before.version, share=share, shadow=shadow, previous=before.previous)


def shadowed(before: Pointer, version: str) -> Pointer:
    """The version is the shadow. Raises ModelError if it answers already."""
    share = None if before.share and before.share.version == version else before.share
    _differs(before, version)
    return Pointer(version=before.version, share=share, shadow=version, previous=before.previous)


def rolled_back(before: Pointer) -> Pointer:
    """One step back: without share and shadow or, without these, the previous version.

    Raises ModelError if there is nothing to go back to.
    """
    if before.share or before.shadow:
        return Pointer(version=before.version, previous=before.previous)
    if before.previous is None:
        raise ModelError(
            f"there is nothing to go back to: {before.version} answers alone, and nothing is known before it"
        )
    return Pointer(version=before.previous)


def _differs(before: Pointer, version: str) -> None:
    if version == before.version:
        raise ModelError(f"{version} answers already: for a share or a shadow, promote another version first")


def names(settings: ModelSettings) -> list[str]:
    """The names of the models to serve, the default first: model.names, or all in weights_dir.

    A model whose manifest says `served: false` is served only if model.names lists it.
    """
    if settings.names:
        return [*settings.names]
    weights_dir = Path(settings.weights_dir)
    found = [name for name in manifests.names(weights_dir) if _is_served(weights_dir, name)]
    return [settings.default, *(name for name in found if name != settings.default)]


def _is_served(weights_dir: Path, name: str) -> bool:
    """A manifest that cannot be read is no reason: whoever loads the model says what is wrong with it."""
    try:
        folder = manifests.folder(weights_dir, name, current(weights_dir, name).version)
        return _says_served(folder, (folder / manifests.FILE).stat().st_mtime_ns)
    except (ModelError, OSError):
        return True


@lru_cache(maxsize=1024)
def _says_served(folder: Path, modified_ns: int) -> bool:
    """modified_ns: of the manifest, which is read again when it changes."""
    return manifests.read(folder).served
