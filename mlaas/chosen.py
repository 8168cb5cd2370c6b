"""Settings as chosen on the command line so far."""

import os
from pathlib import Path

from mlaas import logs, settings


class Chosen:
    """Settings as they were chosen so far; each command may override some by its own options."""

    def __init__(self, file: Path | None, overrides: list[tuple[str, object]]) -> None:
        self._file = file
        self._overrides = overrides

    def load(self, process: str = "mlaas", **overrides: object) -> settings.Settings:
        """overrides: gateway__port=8123; None means not given. Starts logging under the process's name."""
        given = [(name.replace("__", "."), value) for name, value in overrides.items() if value is not None]
        loaded = settings.load(self._file, os.environ, [*self._overrides, *given])
        logs.configure(loaded.log, process)
        return loaded
