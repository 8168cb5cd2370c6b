"""The commands, one file per group. Here is what they share: options, settings, and how they print."""

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import update_wrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from messaging.contract import MODES

if TYPE_CHECKING:
    from mlaas.settings import Settings

Function = TypeVar("Function", bound=Callable[..., Any])
Pairs = tuple[tuple[str, object], ...]

_OPTIONS = "mlaas.commands.setting"


def setting(name: str, option: str, **how: Any) -> Callable[[Function], Function]:
    """An option that overrides a setting. The command gets its value with the other settings only."""

    def keep(context: click.Context, _: click.Parameter, value: object) -> None:
        if value is not None:
            context.meta.setdefault(_OPTIONS, []).append((name, value))

    return click.option(option, expose_value=False, callback=keep, **how)


BROKER = setting(
    "broker.url", "--broker", metavar="URL",
    help="kafka://host:9092.  [default: broker.url; for `up` embedded://]",
)  # fmt: skip
FILES = click.argument("files", nargs=-1, required=True, metavar="FILES...")
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON, as in a pipe.")
MODE = click.option("--mode", type=click.Choice(MODES), help="How to prepare the pictures.  [default: auto]")
MODEL = click.option("--model", metavar="NAME", help="The model to ask.  [default: the gateway's]")
URL = click.option(
    "--url", metavar="URL", help="The gateway.  [default: MLAAS_URL, else http://localhost:8000]"
)


def settings_options(function: Function) -> Function:
    """--config and --set, as file and pairs."""
    config = click.option(
        "--config", "file", type=click.Path(path_type=Path), help="A settings file, read over the defaults."
    )
    one = click.option(
        "--set", "pairs", multiple=True, callback=_pairs, metavar="KEY=VALUE",
        help="One setting, such as gateway.port=8123.",
    )  # fmt: skip
    return config(one(function))


def _pairs(_: click.Context, __: click.Parameter, texts: tuple[str, ...]) -> Pairs:
    for text in texts:
        if "=" not in text:
            raise click.BadParameter(f"{text!r} is not KEY=VALUE", param_hint="--set")
    return tuple((name, value) for name, _, value in (text.partition("=") for text in texts))


class Chosen:
    """The settings chosen on the command line, before the command's name and after it."""

    def __init__(self, file: Path | None, pairs: Pairs) -> None:
        self._file = file
        self._pairs = pairs

    def and_also(self, file: Path | None, pairs: Pairs) -> "Chosen":
        """With those of a command, which win over those chosen so far."""
        return Chosen(file or self._file, (*self._pairs, *pairs))

    def load(self, process: str = "mlaas", unless: Mapping[str, object] | None = None) -> "Settings":
        """The settings; also starts logging under the process's name.

        unless has defaults that replace those of configs/config.yaml.
        """
        from mlaas import logs, settings

        loaded = settings.load(self._file, os.environ, self._pairs, unless or {})
        logs.configure(loaded.log, process)
        return loaded


def pass_chosen(function: Callable[..., Any]) -> Callable[..., Any]:
    """For commands that read settings: adds --config and --set, and passes Chosen as the first argument."""

    @click.pass_context
    def with_settings(
        context: click.Context, /, *args: Any, file: Path | None, pairs: Pairs, **kwargs: Any
    ) -> Any:
        pairs = (*pairs, *context.meta.get(_OPTIONS, ()))
        return function(context.obj.and_also(file, pairs), *args, **kwargs)

    return settings_options(update_wrapper(with_settings, function))


def is_json(as_json: bool) -> bool:
    """Whether to print JSON: if asked to, and in a pipe."""
    return as_json or not sys.stdout.isatty()


def aligned(rows: Sequence[Sequence[str]]) -> Iterable[str]:
    """The rows as lines of a table; the first row has the titles."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def harmless(text: str) -> str:
    """On one line: control characters, and bytes that are not UTF-8, become escapes as in Python."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in utf8(text))


def utf8(text: str) -> str:
    r"""Bytes that are not UTF-8 become escapes such as \x80."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
