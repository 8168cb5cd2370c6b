"""Settings as chosen on the command line so far."""

import os
from collections.abc import Callable, Mapping
from functools import update_wrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from mlaas.settings import Settings

Function = TypeVar("Function", bound=Callable[..., Any])


class Chosen:
    """Settings as they were chosen so far; each command may override some by its own options."""

    def __init__(self, file: Path | None, pairs: tuple[tuple[str, object], ...]) -> None:
        self._file = file
        self._pairs = pairs

    def and_also(self, file: Path | None, pairs: tuple[tuple[str, object], ...]) -> "Chosen":
        """What a command was told after its name wins over what was said before it."""
        return Chosen(file or self._file, (*self._pairs, *pairs))

    def load(
        self, process: str = "mlaas", *, unless: Mapping[str, object] | None = None, **overrides: object
    ) -> "Settings":
        """overrides: gateway__port=8123; None means not given. Starts logging under the process's name.

        unless: other defaults than those of configs/config.yaml, for what nobody chose.
        """
        from mlaas import logs, settings

        given = [(name.replace("__", "."), value) for name, value in overrides.items() if value is not None]
        loaded = settings.load(self._file, os.environ, [*self._pairs, *given], unless or {})
        logs.configure(loaded.log, process)
        return loaded


def options(function: Function) -> Function:
    """--config and --set, as file and pairs."""
    config = click.option(
        "--config", "file", type=click.Path(path_type=Path), help="Your own settings, over the defaults."
    )
    one = click.option(
        "--set", "pairs", multiple=True, callback=_pairs, metavar="KEY=VALUE",
        help="One setting, as gateway.port=8123.",
    )  # fmt: skip
    return config(one(function))


def pass_chosen(function: Callable[..., Any]) -> Callable[..., Any]:
    """For commands that read settings: the first argument is what was chosen. Adds --config and --set."""

    @click.pass_obj
    def with_settings(
        chosen: Chosen, /, *args: Any, file: Path | None, pairs: tuple[tuple[str, object], ...], **kwargs: Any
    ) -> Any:
        return function(chosen.and_also(file, pairs), *args, **kwargs)

    return options(update_wrapper(with_settings, function))


def _pairs(_: click.Context, __: click.Parameter, texts: tuple[str, ...]) -> tuple[tuple[str, object], ...]:
    return tuple(map(_pair, texts))


def _pair(text: str) -> tuple[str, object]:
    name, equals, value = text.partition("=")
    if not equals:
        raise click.BadParameter(f"{text!r} is not KEY=VALUE", param_hint="--set")
    return name, value
