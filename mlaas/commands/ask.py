"""predict, watch: what is on pictures."""

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from messaging.contract import MODES
from mlaas.chosen import Chosen, pass_chosen

if TYPE_CHECKING:
    from messaging.contract import Mode
    from mlaas.answers import Answer

URL = click.option(
    "--url", metavar="URL", help="The gateway.  [default: MLAAS_URL, else http://localhost:8000]"
)
JSON = click.option("--json", "as_json", is_flag=True, help="JSON, as in a pipe.")
MODEL = click.option("--model", metavar="NAME", help="Name of the model that is to answer.")
MODE = click.option("--mode", type=click.Choice(MODES), help="How to prepare the pictures.  [default: auto]")
TIMEOUT = click.option(
    "--timeout", "timeout_s", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS",
    help="How long to wait for an answer.  [default: 30]",
)  # fmt: skip
FILES = click.argument("files", nargs=-1, required=True, metavar="FILES...")

_FEW = 32


@click.command()
@FILES
@click.option("--local", is_flag=True, help="In this process, without gateway and broker.")
@URL
@MODEL
@MODE
@TIMEOUT
@JSON
@pass_chosen
def predict(
    chosen: Chosen,
    files: tuple[str, ...],
    local: bool,
    url: str | None,
    model: str | None,
    mode: "Mode | None",
    timeout_s: float | None,
    as_json: bool,
) -> None:
    """Say what is on each picture, and why that may be wrong.

    A folder is the pictures in it, - is standard input. Prints a table on a terminal, one JSON object a line
    in a pipe. Ends with 1 if some have no answer.
    """
    from mlaas import asking

    if local and (url or timeout_s):
        raise click.UsageError("--local asks no gateway: leave --url and --timeout out")
    its = list(asking.named(files))
    with _progress(len(its)) as progress:
        if local:
            settings = chosen.load("predict").model
            answers = list(asking.locally(its, settings, model, mode, progress))
        else:
            with asking.client(url) as client:
                asked = {"model": model, "mode": mode, "timeout_s": timeout_s}
                answers = asking.over_http(its, client, progress, **asked)
    if not its:
        raise click.ClickException(
            f"no pictures in {', '.join(files)}: looked for {', '.join(asking.PICTURES)}"
        )
    show(answers, as_json)


def show(answers: Sequence["Answer"], as_json: bool) -> None:
    """Answers to standard output, failures to standard error. Ends the command with 1 if there are any."""
    from mlaas.answers import as_json as line
    from mlaas.answers import failures, table

    for text in map(line, answers) if is_json(as_json) else table(answers):
        click.echo(text)
    failed = list(failures(answers))
    for text in failed:
        click.echo(text, err=True)
    if failed:
        sys.exit(1)


def is_json(asked: bool) -> bool:
    return asked or not sys.stdout.isatty()


@contextmanager
def _progress(length: int) -> Iterator[Callable[[int, int], Any]]:
    """A bar on the terminal where there are many."""
    hidden = length <= _FEW or not sys.stderr.isatty()
    with click.progressbar(length=length, file=sys.stderr, hidden=hidden, label="pictures") as bar:
        yield lambda done, _: bar.update(done - bar.pos)


@click.command(short_help="Say of each picture that appears in a folder what is on it.")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--all", "everything", is_flag=True, help="The pictures that are there already, too.")
@click.option(
    "--interval", "interval_s", type=click.FloatRange(min=0.05), default=0.5, show_default=True,
    metavar="SECONDS", help="How often to look.",
)  # fmt: skip
@URL
@MODEL
@MODE
@JSON
def watch(
    folder: Path,
    everything: bool,
    interval_s: float,
    url: str | None,
    model: str | None,
    mode: "Mode | None",
    as_json: bool,
) -> None:
    """Say of each picture that appears in a folder what is on it, until Ctrl-C.

    A picture is asked about once it is complete. While no gateway answers, pictures wait.
    """
    from mlaas import asking
    from mlaas.arrivals import Arrivals, look

    try:
        arrivals = Arrivals({} if everything else look(folder, asking.PICTURES))
        click.echo(f"watching {folder}; Ctrl-C ends it", err=True)
        with asking.client(url) as client:
            ask = _Asking(lambda path: asking.one(client, path, model=model, mode=mode), is_json(as_json))
            interrupted = _interrupted()
            while not interrupted.is_set():
                arrivals.again(ask(arrivals.settled(look(folder, asking.PICTURES))))
                time.sleep(interval_s)
    except KeyboardInterrupt:
        click.echo(err=True)
    except OSError as error:
        raise click.ClickException(f"{folder} cannot be watched any more: {error.strerror}") from error


def _interrupted() -> threading.Event:
    """Set by Ctrl-C, which raises KeyboardInterrupt as well: one that comes amid a finalizer is lost."""
    interrupted = threading.Event()

    def interrupt(_: int, __: FrameType | None) -> None:
        interrupted.set()
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    return interrupted


class _Asking:
    """Prints one answer after the other; says once that the gateway is away."""

    def __init__(self, ask: Callable[[Path], Any], as_json: bool) -> None:
        self._ask, self._as_json = ask, as_json
        self._is_away = False

    def __call__(self, paths: list[Path]) -> list[Path]:
        """Returns those to be asked about later."""
        from mlaas import answers, asking
        from mlaas.hints import with_hint
        from mlaas_client import Overloaded, Unavailable, Unreachable

        for number, path in enumerate(paths):
            outcome = self._ask(path)
            if isinstance(outcome, (Overloaded, Unavailable, Unreachable)):
                if not self._is_away:
                    click.echo(f"waiting: {with_hint(outcome)}", err=True)
                self._is_away = True
                return paths[number:]
            self._is_away = False
            answer = asking.answer(str(path), outcome)
            for line in [answers.as_json(answer)] if self._as_json else answers.row(answer):
                click.echo(line)
            for line in answers.failures([answer]):
                click.echo(line, err=True)
        return []


COMMANDS = (predict, watch)
