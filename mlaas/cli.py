"""The command `mlaas`: its commands by section, `config`, and `completion`."""

import sys
from pathlib import Path

import click
from click.shell_completion import get_completion_class

from mlaas import __version__
from mlaas.commands import (
    Chosen,
    bench,
    broker,
    dlq,
    doctor,
    jobs,
    keys,
    models,
    pass_chosen,
    predict,
    serve,
    settings_options,
    train,
)
from mlaas.errors import of_missing_package
from mlaas.supervisor import end_with_parent, found_by_children

SECTIONS = {
    "Try it": {
        "up": "mlaas up --port 8123",
        "doctor": "mlaas doctor",
    },
    "Classify pictures": {
        "predict": "mlaas predict samples/sandal.png",
        "watch": "mlaas watch ~/Pictures --all",
        "jobs": "mlaas jobs submit samples",
        "models": "mlaas models",
    },
    "Run it in production": {
        "gateway": "mlaas gateway --broker kafka://localhost:9092",
        "worker": "mlaas worker --broker kafka://localhost:9092 --workers 2",
        "topics": "mlaas topics create --broker kafka://localhost:9092",
        "keys": "mlaas keys new alice --file keys.txt",
        "config": "mlaas config show",
        "completion": 'eval "$(mlaas completion bash)"',
    },
    "Work on the model": {
        "train": "mlaas train --config configs/smoke.yaml",
        "evaluate": "mlaas evaluate --json",
    },
    "Inspect and measure": {
        "bench": "mlaas bench http://127.0.0.1:8000/predict --clients 64 --seconds 10",
        "dlq": "mlaas dlq ls",
        "send": "mlaas send samples/coat.png --wait",
        "receive": "mlaas receive --count 1",
    },
}
_OTHERS = "Other commands"
_WIDTH = 64


class Sections(click.Group):
    """A group that lists its commands by section, and adds an example to the help of each."""

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        super().add_command(cmd, name)
        for examples in SECTIONS.values():
            if example := examples.get(name or cmd.name or ""):
                cmd.epilog = f"Example:  {example}"

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        left = dict(self.commands)
        for title, names in [*SECTIONS.items(), (_OTHERS, tuple(left))]:
            rows = [(name, left.pop(name).get_short_help_str(_WIDTH)) for name in names if name in left]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


@click.group(
    cls=Sections,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="`mlaas COMMAND --help` describes a command, with an example.",
)
@settings_options
@click.option("--supervised", is_flag=True, hidden=True, help="End when standard input ends.")
@click.version_option(__version__)
@click.pass_context
def command(
    context: click.Context, file: Path | None, pairs: tuple[tuple[str, object], ...], supervised: bool
) -> None:
    """Machine Learning as a Service: a picture in over HTTP, through Kafka to a Keras model, the answer out.

    \b
    mlaas up                            starts everything; then, in another terminal:
    mlaas predict samples/sandal.png    classifies a picture
    """
    if supervised:
        end_with_parent()
    context.obj = Chosen(file, pairs)


@command.group(short_help="Show the settings in effect.")
def config() -> None:
    """The settings."""


@config.command()
@pass_chosen
def show(chosen: Chosen) -> None:
    """Print the settings in effect, from files, environment and command line. Secrets are masked."""
    import msgspec

    from mlaas.settings import without_secrets

    click.echo(without_secrets(msgspec.yaml.encode(chosen.load()).decode()), nl=False)


@command.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print a script that makes the shell complete commands and options.

    \b
    ~/.bashrc:                   eval "$(mlaas completion bash)"
    ~/.zshrc:                    eval "$(mlaas completion zsh)"
    ~/.config/fish/config.fish:  mlaas completion fish | source
    """
    its = get_completion_class(shell)
    assert its is not None
    click.echo(its(context.find_root().command, {}, "mlaas", "_MLAAS_COMPLETE").source())


for group in (serve, predict, jobs, models, train, broker, dlq, keys, doctor, bench):
    for part in group.COMMANDS:
        command.add_command(part)


def main() -> None:
    """Runs the command. Errors that the user can correct are one line each."""
    found_by_children()
    try:
        command(prog_name="mlaas", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(130)
    except ModuleNotFoundError as error:
        of_missing_package(error.name or str(error)).show()
        sys.exit(1)
