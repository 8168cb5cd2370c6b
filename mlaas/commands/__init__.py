"""The commands, a module for each group; and what they share: options, settings and output."""

import logging
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import update_wrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from mlaas.settings import Settings

Function = TypeVar("Function", bound=Callable[..., Any])
Pairs = tuple[tuple[str, object], ...]

_log = logging.getLogger("mlaas")

_OPTIONS = "mlaas.commands.setting"


def setting(name: str, option: str, **how: Any) -> Callable[[Function], Function]:
    """An option that overrides a setting. Its value reaches the command in the loaded settings only."""

    def keep(context: click.Context, _: click.Parameter, value: object) -> None:
        if value is not None:
            context.meta.setdefault(_OPTIONS, []).append((name, value))

    return click.option(option, expose_value=False, callback=keep, **how)


BROKER = setting(
    "broker.url", "--broker", metavar="URL",
    help="The broker: kafka://HOST:9092.  [default: broker.url; for `mlaas up`: embedded://]",
)  # fmt: skip
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def settings_options(function: Function) -> Function:
    """Adds --config and --set, which the function gets as file and pairs."""
    config = click.option(
        "--config",
        "file",
        type=click.Path(path_type=Path),
        help="A settings file that overrides defaults.",
    )
    one = click.option(
        "--set", "pairs", multiple=True, callback=_pairs, metavar="KEY=VALUE",
        help="Override a setting, such as gateway.port=8123. May be repeated.",
    )  # fmt: skip
    return config(one(function))


def _pairs(_: click.Context, __: click.Parameter, texts: tuple[str, ...]) -> Pairs:
    for text in texts:
        if "=" not in text:
            raise click.BadParameter(f"{text!r} is not KEY=VALUE", param_hint="--set")
    return tuple((name, value) for name, _, value in (text.partition("=") for text in texts))


class Chosen:
    """The settings chosen on the command line, before the command's name and after it."""

    def __init__(self, file: Path | None, pairs: Pairs, metrics_socket: Path | None = None) -> None:
        """metrics_socket: where to answer scrapes, for a child of `mlaas up` and its like."""
        self.metrics_socket = metrics_socket
        self._file = file
        self._pairs = pairs

    def and_also(self, file: Path | None, pairs: Pairs) -> "Chosen":
        """Adds settings, which take precedence over those chosen so far."""
        return Chosen(file or self._file, (*self._pairs, *pairs), self.metrics_socket)

    def load(self, process: str = "mlaas", unless: Mapping[str, object] | None = None) -> "Settings":
        """Loads the settings and configures logging; process names this process in log lines.

        unless has defaults that replace those of configs/config.yaml. Raises SettingsError.
        """
        from mlaas import settings

        loaded = settings.load(self._file, os.environ, self._pairs, unless or {})
        settings.configure_logging(loaded.log, process)
        if foreign := settings.set_by_kubernetes(os.environ):
            _log.warning("ignored, because Kubernetes sets them for a Service: %s", ", ".join(foreign))
            for name in foreign:  # child processes would repeat the warning
                del os.environ[name]
        return loaded


def pass_chosen(function: Callable[..., Any]) -> Callable[..., Any]:
    """For a command that reads settings: adds --config and --set, and passes Chosen as first argument."""

    @click.pass_context
    def with_settings(
        context: click.Context, /, *args: Any, file: Path | None, pairs: Pairs, **kwargs: Any
    ) -> Any:
        pairs = (*pairs, *context.meta.get(_OPTIONS, ()))
        return function(context.obj.and_also(file, pairs), *args, **kwargs)

    return settings_options(update_wrapper(with_settings, function))


def is_json(as_json: bool) -> bool:
    """Whether to print JSON: if requested, or if standard output is not a terminal."""
    return as_json or not sys.stdout.isatty()


def aligned(rows: Sequence[Sequence[str]], widths: Sequence[int] = ()) -> Iterable[str]:
    """Formats rows of cells as lines with aligned columns, as wide as their widest cell unless given."""
    widths = widths or [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def harmless(text: str) -> str:
    """The text on one line: unprintable characters, and bytes that are not UTF-8, become Python escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in utf8(text))


def utf8(text: str) -> str:
    r"""The text with bytes that are not UTF-8 replaced by escapes such as \x80."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
