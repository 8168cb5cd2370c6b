"""The command `mlaas`. Each part imports what it runs only when it runs."""

import sys
from pathlib import Path

import click

from mlaas import __version__
from mlaas.chosen import Chosen, options
from mlaas.commands import (
    ask,
    bench,
    broker,
    completion,
    config,
    dlq,
    doctor,
    evaluate,
    jobs,
    keys,
    model,
    serve,
)
from mlaas.errors import exit_code, users_errors
from mlaas.help import Sections
from mlaas.hints import with_hint
from mlaas.supervisor import end_with_parent, found_by_children


@click.group(
    cls=Sections,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="mlaas COMMAND --help says more of each, with an example.",
)
@options
@click.option("--supervised", is_flag=True, hidden=True, help="End when standard input ends.")
@click.version_option(__version__)
@click.pass_context
def command(
    context: click.Context, file: Path | None, pairs: tuple[tuple[str, object], ...], supervised: bool
) -> None:
    """Machine Learning as a Service: a picture in over HTTP, through Kafka to a Keras model, the answer out.

    \b
    mlaas up                            starts everything; then, in another terminal:
    mlaas predict samples/sandal.png    says what is on the picture
    """
    if supervised:
        end_with_parent()
    context.obj = Chosen(file, pairs)


for group in (
    serve,
    ask,
    jobs,
    model,
    evaluate,
    broker,
    dlq,
    keys,
    doctor,
    bench,
    config,
    completion,
):
    for part in group.COMMANDS:
        command.add_command(part)


def main() -> None:
    """What is the user's to mend ends in one line, not in a traceback."""
    found_by_children()
    try:
        command(prog_name="mlaas", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(130)
    except ModuleNotFoundError as error:
        from mlaas.extras import advice

        click.echo(f"mlaas: {advice(error)}", err=True)
        sys.exit(1)
    except users_errors() as error:
        click.echo(f"mlaas: {with_hint(error)}", err=True)
        sys.exit(exit_code(error))
