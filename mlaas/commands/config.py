"""config show."""

import re
from typing import TYPE_CHECKING

import click
import msgspec

if TYPE_CHECKING:
    from mlaas.chosen import Chosen

_SECRET = re.compile(r"((?:password|secret|token|key)[\w.]*=)[^&\s]+", re.IGNORECASE)
_CREDENTIALS = re.compile(r"(://[^:@/\s]*:)[^@/\s]+(@)")


@click.group()
def config() -> None:
    """The settings."""


@config.command()
@click.pass_obj
def show(chosen: "Chosen") -> None:
    """Print the settings as they result from file, environment and command line; secrets are masked."""
    settings = chosen.load()
    click.echo(without_secrets(msgspec.yaml.encode(settings).decode()), nl=False)


def without_secrets(text: str) -> str:
    return _CREDENTIALS.sub(r"\1***\2", _SECRET.sub(r"\1***", text))


COMMANDS = (config,)
