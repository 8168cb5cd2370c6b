"""keys: create API keys for the gateway."""

import secrets
from pathlib import Path

import click

from mlaas.errors import UserError

_PREFIX = "mlaas_"
_RANDOM_BYTES = 32


@click.group()
def keys() -> None:
    """Create API keys for the gateway, whose gateway.api_keys_file holds their digests."""


@keys.command()
@click.argument("name")
@click.option(
    "--rate", type=click.FloatRange(min=0, min_open=True),
    help="The most requests per second.  [default: no limit]",
)  # fmt: skip
@click.option(
    "--burst", type=click.IntRange(min=1), help="The most requests at once after a pause.  [default: --rate]"
)
@click.option(
    "--file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Append the line for the key to this file instead of printing it.",
)
def new(name: str, rate: float | None, burst: int | None, file: Path | None) -> None:
    """Create an API key for NAME and print it.

    The key is not stored: the file holds only its SHA-256 digest. If NAME has a key in the file, the new one
    gets the same rate, so that it can replace the first.
    """
    from gateway.api_keys import NAME_IS, digest_of, is_name

    if not is_name(name):
        raise click.BadParameter(NAME_IS, param_hint="NAME")
    if burst is not None and rate is None:
        raise click.UsageError("--burst needs --rate")
    key = _PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)
    start = f"{name} {digest_of(key)}"
    limits = tuple(_number(limit) for limit in (rate, burst) if limit is not None)
    if file is not None:
        line = _add(name, start, limits, file)
        click.echo(f"added to {file}: {line}", err=True)
    else:
        line = " ".join((start, *limits))
        click.echo(f"add this line to gateway.api_keys_file:\n{line}\n\nthe key, shown only once:", err=True)
    click.echo(key)


def _add(name: str, start: str, limits: tuple[str, ...], file: Path) -> str:
    """Appends the line for a key and returns it. Raises UserError."""
    from gateway.api_keys import KeyFileError, parse

    try:
        before = file.read_text(encoding="utf-8") if file.exists() else ""
        ended = "" if before.endswith("\n") or not before else "\n"
        shared = parse(before + ended + start).rates.get(name, ())
        line = " ".join((start, *(limits or map(_number, shared))))
        parse(before + ended + line)
        with file.open("a", encoding="utf-8") as target:
            target.write(f"{ended}{line}\n")
    except OSError as error:
        raise UserError(f"cannot write {file}: {error.strerror}") from error
    except KeyFileError as error:
        raise UserError(f"{file}: {error}") from error
    return line


def _number(limit: float) -> str:
    return f"{limit:.12g}"
