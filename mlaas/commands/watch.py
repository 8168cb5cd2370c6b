"""watch: classify the pictures added to a folder."""

import signal
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from mlaas.commands import JSON, Answer, aligned, cells, failures, is_json, json_line
from mlaas.commands.predict import (
    AUTO_MODEL,
    MODE,
    PICTURES,
    URL,
    Chooser,
    answer,
    ask,
    gateway,
    served_by,
)
from mlaas.errors import UserError, of_gateway

if TYPE_CHECKING:
    from messaging.contract import Mode

_WIDTHS = (32, 12, 10, 19, 0)


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--all", "everything", is_flag=True, help="Also classify the pictures already in the folder.")
@click.option(
    "--interval", "interval_s", type=click.FloatRange(min=0.05), default=0.5, show_default=True,
    metavar="SECONDS", help="How often to check the folder.",
)  # fmt: skip
@URL
@AUTO_MODEL
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
    """Classify each picture added to a folder, until Ctrl-C.

    A picture is sent once its file is complete. While the gateway is unavailable, pictures wait.
    """
    try:
        arrivals = Arrivals({} if everything else look(folder))
        click.echo(f"watching {folder}; press Ctrl-C to stop", err=True)
        with gateway(url) as client:
            asking = partial(ask, client, Chooser(model, partial(served_by, client)), mode=mode)
            interrupted = _interrupted()
            is_waiting = False
            while not interrupted.is_set():
                paths = arrivals.settled(look(folder))
                waiting = _print_each(paths, asking, is_json(as_json), is_waiting)
                is_waiting = bool(waiting) or (is_waiting and not paths)
                arrivals.again(waiting)
                time.sleep(interval_s)
    except KeyboardInterrupt:
        click.echo(err=True)
    except OSError as error:
        raise UserError(f"cannot watch {folder}: {error.strerror}") from error


class Stamp(NamedTuple):
    """The size and time of a file, which change when it is written."""

    size_bytes: int
    modified_ns: int


Listing = Mapping[Path, Stamp]


class Arrivals:
    """Finds new files in listings of a folder. A file is complete once two in a row agree on it."""

    def __init__(self, known: Listing) -> None:
        self._given: dict[Path, Stamp] = dict(known)
        self._last: Listing = {}

    def settled(self, listing: Listing) -> list[Path]:
        """The complete files that are new, or have changed since they were last returned."""
        complete = [
            path
            for path, stamp in sorted(listing.items())
            if stamp.size_bytes and self._last.get(path) == stamp and self._given.get(path) != stamp
        ]
        self._last = dict(listing)
        self._given = {path: stamp for path, stamp in self._given.items() if path in listing}
        self._given |= {path: listing[path] for path in complete}
        return complete

    def again(self, paths: list[Path]) -> None:
        """Makes the next listing return these files again."""
        for path in paths:
            self._given.pop(path, None)


def look(folder: Path) -> Listing:
    """The pictures in the folder. Raises OSError if it no longer exists."""
    found: dict[Path, Stamp] = {}
    for path in folder.iterdir():
        if path.suffix.lower() in PICTURES and not path.name.startswith("."):
            try:
                its = path.stat()
            except FileNotFoundError:
                continue
            found[path] = Stamp(its.st_size, its.st_mtime_ns)
    return found


def row(answer: Answer) -> Iterable[str]:
    """The prediction as a line in columns of fixed width, as later rows are unknown; nothing without one."""
    its = answer.prediction
    return () if its is None else aligned([cells(answer.name, its)], _WIDTHS)


def _print_each(
    paths: list[Path], asking: Callable[[Path], Any], as_json: bool, is_waiting: bool
) -> list[Path]:
    """Classifies and prints each picture. Returns those that must wait for the gateway; reports that once."""
    from mlaas_client import Overloaded, Unavailable, Unreachable

    for number, path in enumerate(paths):
        outcome = asking(path)
        if isinstance(outcome, (Overloaded, Unavailable, Unreachable)):
            if number or not is_waiting:
                click.echo(f"waiting: {of_gateway(outcome)}", err=True)
            return paths[number:]
        its = answer(str(path), outcome)
        for line in [json_line(its)] if as_json else row(its):
            click.echo(line)
        for line in failures([its]):
            click.echo(line, err=True)
    return []


def _interrupted() -> threading.Event:
    """An event that Ctrl-C sets in addition to KeyboardInterrupt, which Python drops inside a finalizer."""
    interrupted = threading.Event()

    def interrupt(_: int, __: FrameType | None) -> None:
        interrupted.set()
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    return interrupted
