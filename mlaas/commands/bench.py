"""bench: how much a running gateway takes."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from mlaas.commands.ask import JSON

if TYPE_CHECKING:
    from mlaas.load.tally import Result

_DIFFERENT = 16


@click.command(short_help="Measure requests a second and latencies.")
@click.argument("url", metavar="URL")
@click.option("--clients", type=click.IntRange(min=1), default=64, show_default=True, help="Connections.")
@click.option("--seconds", type=click.FloatRange(min=0.1), default=10, show_default=True)
@click.option(
    "--rate", "rate_per_s", type=click.FloatRange(min=0, min_open=True), metavar="R",
    help="So many requests a second, whatever comes back. Latency then counts from when each was due.",
)  # fmt: skip
@click.option(
    "--picture", "pictures", multiple=True, type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="What to send; may be repeated.  [default: 28 x 28 pixels of our own]",
)  # fmt: skip
@JSON
def bench(
    url: str,
    clients: int,
    seconds: float,
    rate_per_s: float | None,
    pictures: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Send pictures to a URL as fast as it answers, or at a rate; print requests a second and latencies.

    An answer counts when it names the SHA-256 of the picture that was sent. Ends with 1 if none does. Load
    is made in this process: on one machine it takes from what it measures.
    """
    import asyncio

    from mlaas.load.generator import load, loop_factory

    given = _exchanges(url, pictures)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        found = runner.run(load(url, given, clients=clients, seconds=seconds, rate_per_s=rate_per_s))
    if not found.answers:
        raise click.ClickException(_nothing(url, found))
    about = {"url": url, "clients": clients, "seconds": seconds, "rate_per_s": rate_per_s}
    click.echo(_json(about, found) if as_json or not sys.stdout.isatty() else _text(found))


def _exchanges(url: str, pictures: tuple[Path, ...]) -> Any:
    from mlaas.load.exchange import exchanges
    from mlaas.made_pictures import made

    if not _is_url(url):
        raise click.BadParameter(f"{url!r} is not a URL as http://127.0.0.1:8000/predict", param_hint="URL")
    key = os.environ.get("MLAAS_API_KEY", "").strip()
    contents = [path.read_bytes() for path in pictures] or made(_DIFFERENT)
    return exchanges(url, contents, headers={"X-API-Key": key} if key else {})


def _is_url(text: str) -> bool:
    try:
        its = urlsplit(text)
        return its.scheme in ("http", "https") and bool(its.hostname) and its.port != 0
    except ValueError:
        return False


def _nothing(url: str, found: "Result") -> str:
    said = ", ".join(f"{kind}: {count}" for kind, count in found.errors.items()) or "nothing was sent"
    hint = "`mlaas doctor` says what is missing"
    if found.errors.keys() & {"404", "405"}:
        hint = "the path is /predict"
    elif "no connection" in found.errors:
        hint = "is it running? `mlaas up` starts it"
    elif "401" in found.errors:
        hint = "put the key into MLAAS_API_KEY"
    return f"{url} gave no answer ({said}); {hint}"


def _json(about: dict[str, object], found: "Result") -> str:
    import msgspec

    return msgspec.json.encode({**about, **msgspec.structs.asdict(found)}).decode()


def _text(found: "Result") -> str:
    errors = ", ".join(f"{kind}: {count}" for kind, count in found.errors.items()) or "none"
    return "\n".join(
        (
            f"requests/s  {found.requests_per_s:10.1f}",
            f"answers     {found.answers:10d}",
            f"p50 ms      {found.p50_ms:10.1f}",
            f"p90 ms      {found.p90_ms:10.1f}",
            f"p99 ms      {found.p99_ms:10.1f}",
            f"max ms      {found.max_ms:10.1f}",
            f"errors      {errors:>10}",
        )
    )


COMMANDS = (bench,)
