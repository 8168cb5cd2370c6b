"""The commands, a module for each group; and what they share: options, settings and output."""

import csv
import io
import json
import logging
import math
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import update_wrapper
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from mlaas.errors import UserError

if TYPE_CHECKING:
    from mlaas.settings import Settings

Function = TypeVar("Function", bound=Callable[..., Any])
Pairs = tuple[tuple[str, object], ...]

_log = logging.getLogger("mlaas")

_OPTIONS = "mlaas.commands.setting"

_TITLES = ("FILE", "LABEL", "CONFIDENCE", "MODEL", "WARNINGS")
_MODEL_AT = _TITLES.index("MODEL")
_FEW_NUMBERS = 4


def setting(name: str, option: str, **how: Any) -> Callable[[Function], Function]:
    """An option that overrides a setting. Its value reaches the command in the loaded settings only."""

    def keep(context: click.Context, _: click.Parameter, value: object) -> None:
        if value is not None:
            context.meta.setdefault(_OPTIONS, []).append((name, value))

    return click.option(option, expose_value=False, callback=keep, **how)


BROKER = setting(
    "broker.url", "--broker", metavar="URL",
    help="kafka://HOST:9092 or pubsub://PROJECT.  [default: broker.url; for `mlaas up`: embedded://]",
)  # fmt: skip
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
YES = click.option("--yes", is_flag=True, help="Do not ask for confirmation.")


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


def confirm(question: str, yes: bool) -> None:
    """Asks, unless it is known. Raises UserError if the answer is no, and UsageError if nobody can answer."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(f"{question} Standard input is not a terminal: confirm with --yes")
    if not click.confirm(question, err=True):
        raise UserError("cancelled; nothing was changed")


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


class Answer(NamedTuple):
    """A prediction as POST /predict returns it; or an error, with its problem document if there is one."""

    name: str
    prediction: Mapping[str, Any] | None = None
    error: UserError | None = None
    problem: Mapping[str, Any] = {}


def show(answers: Sequence[Answer], as_json: bool, as_csv: bool = False, top_k: int = 1) -> None:
    """Prints predictions to standard output, errors to standard error; exits with 1 if there are errors."""
    if as_csv:
        lines = csv_lines(answers, top_k)
    else:
        lines = map(json_line, answers) if is_json(as_json) else table(answers, top_k)
    for line in lines:
        click.echo(line)
    failed = list(failures(answers))
    for line in failed:
        click.echo(line, err=True)
    if failed:
        sys.exit(1)


def table(answers: Sequence[Answer], top_k: int = 1) -> Iterable[str]:
    """The predictions as a table with titles; nothing if there are none. Names the models if they differ.

    Labels after the first have lines of their own.
    """
    its = [(answer.name, answer.prediction) for answer in answers if answer.prediction is not None]
    rows = [_TITLES, *(cells(name, prediction) for name, prediction in its)]
    if len({prediction.get("model") for _, prediction in its}) <= 1:
        rows = [(*row[:_MODEL_AT], *row[_MODEL_AT + 1 :]) for row in rows]
    if top_k > 1:
        first, *others = rows
        below = [_lines_below(prediction, top_k, len(first)) for _, prediction in its]
        rows = [first, *(line for row, more in zip(others, below, strict=True) for line in (row, *more))]
    return aligned(rows) if its else ()


def _lines_below(prediction: Mapping[str, Any], top_k: int, width: int) -> list[tuple[str, ...]]:
    more = islice(prediction.get("probabilities", {}).items(), 1, top_k)
    return [("", *_label_and_share(label, share), *[""] * (width - 3)) for label, share in more]


def csv_lines(answers: Sequence[Answer], top_k: int = 1) -> Iterable[str]:
    """RFC 4180, with titles. Shares are from 0 to 1."""
    after = range(2, top_k + 1)
    titles = [
        "file",
        "label",
        "confidence",
        *(f"{what}_{n}" for n in after for what in ("label", "confidence")),
    ]
    yield _csv([*titles, "model", "version", "warnings", "error"])
    for answer in answers:
        its: Mapping[str, Any] = answer.prediction or {}
        shares = dict(islice(its.get("probabilities", {}).items(), 1, top_k))
        more = [cell for each in shares.items() for cell in each]
        yield _csv(
            [
                harmless(answer.name),
                _label_or_numbers(its),
                its.get("confidence"),
                *(more + [""] * (2 * len(after) - len(more))),
                *(its.get(name, "") for name in ("model", "version")),
                "; ".join(its.get("warnings", ())),
                harmless(answer.error.message) if answer.error else "",
            ]
        )


def _label_or_numbers(prediction: Mapping[str, Any]) -> str:
    label = prediction.get("label")
    return label or " ".join(f"{each:g}" for each in prediction.get("outputs", ()))


def _csv(cells: Iterable[object]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(cells)
    return text.getvalue()


def json_line(answer: Answer) -> str:
    """The answer as a JSON object with the file's name and the prediction or problem."""
    outcome = answer.prediction
    if outcome is None:
        outcome = {"problem": answer.problem or {"title": answer.error and answer.error.message}}
    return json.dumps({"file": harmless(answer.name), **outcome})


def failures(answers: Iterable[Answer]) -> Iterable[str]:
    """A line for each error, with a hint on what to do."""
    for answer in answers:
        if answer.error is not None:
            yield f"{harmless(answer.name)}: {harmless(str(answer.error))}"


def cells(name: str, prediction: Mapping[str, Any]) -> tuple[str, ...]:
    """One for each of the titles. A model without labels has its numbers in place of the label."""
    warnings, model = "; ".join(prediction.get("warnings", ())), str(prediction.get("model", ""))
    if prediction["label"] is None:
        numbers = prediction.get("outputs", ())
        more = ", …" if len(numbers) > _FEW_NUMBERS else ""
        label, share = ", ".join(f"{each:g}" for each in numbers[:_FEW_NUMBERS]) + more, ""
    else:
        label, share = _label_and_share(prediction["label"], prediction["confidence"])
    return harmless(name), label, share, harmless(model), harmless(warnings)


def _label_and_share(label: object, share: float) -> tuple[str, str]:
    return harmless(str(label)), percent(share).rjust(len("CONFIDENCE"))


def percent(share: float) -> str:
    """Rounded down, so that only certainty is 100.0%."""
    return f"{math.floor(round(share * 1000, 6)) / 10:.1f}%"
