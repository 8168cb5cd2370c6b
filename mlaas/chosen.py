"""Settings as chosen on the command line so far."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from mlaas.settings import Settings


class Chosen:
    """Settings as they were chosen so far; each command may override some by its own options."""

    def __init__(self, file: Path | None, overrides: list[tuple[str, object]]) -> None:
        self._file = file
        self._overrides = overrides

    def with_file(self, file: Path) -> "Chosen":
        """The same, over the defaults in another file."""
        return Chosen(file, self._overrides)

    def load(self, process: str = "mlaas", **overrides: object) -> "Settings":
        """overrides: gateway__port=8123; None means not given. Starts logging under the process's name."""
        from mlaas import logs, settings

        given = [(name.replace("__", "."), value) for name, value in overrides.items() if value is not None]
        loaded = settings.load(self._file, os.environ, [*self._overrides, *given])
        logs.configure(loaded.log, process)
        return loaded


def use_file(context: click.Context, _: click.Parameter, file: Path | None) -> None:
    """What --config does after a command's name; before it, it is the group's own."""
    if file is not None:
        context.obj = context.obj.with_file(file)


def config_option() -> click.Option:
    """--config for one command."""
    return click.Option(
        ["--config"],
        type=click.Path(path_type=Path),
        callback=use_file,
        expose_value=False,
        help="Your own settings, over the defaults.",
    )
