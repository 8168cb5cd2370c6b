"""config show."""

import re

import click
import msgspec

from mlaas.chosen import Chosen, pass_chosen

_SECRET = re.compile(r"((?:password|secret|token|key)[\w.]*=)[^&\s]+", re.IGNORECASE)
_CREDENTIALS = re.compile(r"(://[^:@/\s]*:)\S+(@)")


@click.group()
def config() -> None:
    """The settings."""


@config.command()
@pass_chosen
def show(chosen: Chosen) -> None:
    """Print the settings as they result from file, environment and command line; secrets are masked."""
    settings = chosen.load()
    click.echo(without_secrets(msgspec.yaml.encode(settings).decode()), nl=False)


def without_secrets(text: str) -> str:
    return _CREDENTIALS.sub(r"\1***\2", _SECRET.sub(r"\1***", text))


COMMANDS = (config,)
