"""The command `mlaas`: its commands by section, `config`, and `completion`."""

import os
import signal
import sys
import threading
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import click

from mlaas import __version__
from mlaas.commands import Chosen, pass_chosen, settings_options
from mlaas.errors import of_missing_package


class Entry(NamedTuple):
    """A command in `mlaas --help`: the module of mlaas.commands that defines it, and its texts."""

    module: str
    help: str
    example: str


SECTIONS = {
    "Try it": {
        "up": Entry("serve", "Start everything on this machine.", "mlaas up --port 8123"),
        "doctor": Entry("doctor", "Find what is broken and how to fix it.", "mlaas doctor"),
    },
    "Classify pictures": {
        "predict": Entry("predict", "Classify pictures.", "mlaas predict samples/sandal.png"),
        "watch": Entry("watch", "Classify pictures added to a folder.", "mlaas watch ~/Pictures --all"),
        "jobs": Entry("jobs", "Submit pictures now, fetch results later.", "mlaas jobs submit samples"),
        "models": Entry("models", "List, add and check models.", "mlaas models"),
    },
    "Run it in production": {
        "gateway": Entry("serve", "Serve the HTTP API.", "mlaas gateway --broker kafka://localhost:9092"),
        "worker": Entry(
            "serve",
            "Run the model on incoming pictures.",
            "mlaas worker --broker kafka://localhost:9092 --workers 2",
        ),
        "topics": Entry(
            "broker",
            "Create the topics on the broker, and grant rights.",
            "mlaas topics create --broker kafka://localhost:9092",
        ),
        "keys": Entry("keys", "Create API keys for the gateway.", "mlaas keys new alice --file keys.txt"),
        "config": Entry("", "Show the settings in effect.", "mlaas config show"),
        "completion": Entry("", "Print a shell completion script.", 'eval "$(mlaas completion bash)"'),
    },
    "Work on the model": {
        "train": Entry("train", "Train a model.", "mlaas train --config configs/smoke.yaml"),
        "evaluate": Entry("train", "Measure a model's accuracy.", "mlaas evaluate --json"),
    },
    "Inspect and measure": {
        "bench": Entry(
            "bench",
            "Measure throughput and latency.",
            "mlaas bench http://127.0.0.1:8000/predict --clients 64 --seconds 10",
        ),
        "dlq": Entry("dlq", "Inspect, replay and delete dead letters.", "mlaas dlq ls"),
        "send": Entry("broker", "Publish pictures to the broker.", "mlaas send samples/coat.png --wait"),
        "receive": Entry("broker", "Print replies from the broker.", "mlaas receive --count 1"),
    },
}

_INSTALLED_IN = ("site-packages", "dist-packages")


class Sections(click.Group):
    """A group that lists its commands by section and imports only the one that runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for section in SECTIONS.values() for name in section]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = next((section[cmd_name] for section in SECTIONS.values() if cmd_name in section), None)
        if entry is None:
            return None
        if cmd_name not in self.commands:
            self.add_command(getattr(import_module(f"mlaas.commands.{entry.module}"), cmd_name))
        found = self.commands[cmd_name]
        found.short_help, found.epilog = entry.help, f"Example:  {entry.example}"
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        import difflib

        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            if near := difflib.get_close_matches(args[0], self.list_commands(ctx), n=1):
                raise click.UsageError(f"{error.message} Did you mean {near[0]!r}?", ctx) from error
            raise

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, section in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name, entry.help) for name, entry in section.items()])


@click.group(
    cls=Sections,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="`mlaas COMMAND --help` describes a command and shows an example.",
)
@settings_options
@click.option(
    "--supervised",
    type=click.Path(path_type=Path),
    hidden=True,
    help="Exit when standard input is closed; until then, answer scrapes at this Unix socket.",
)
@click.version_option(__version__)
@click.pass_context
def command(
    context: click.Context, file: Path | None, pairs: tuple[tuple[str, object], ...], supervised: Path | None
) -> None:
    """Machine Learning as a Service: classify pictures over HTTP with a Keras model behind Kafka.

    \b
    mlaas up                            starts everything; then, in another terminal:
    mlaas predict samples/sandal.png    classifies a picture
    """
    if supervised:
        end_with_parent()
    context.obj = Chosen(file, pairs, supervised)


@command.group()
def config() -> None:
    """Inspect the settings."""


@config.command()
@pass_chosen
def show(chosen: Chosen) -> None:
    """Print the settings in effect.

    They are merged from the defaults, your file, the environment and the command line. Secrets are masked.
    """
    import msgspec

    from mlaas.settings import without_secrets

    click.echo(without_secrets(msgspec.yaml.encode(chosen.load()).decode()), nl=False)


@command.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print a script that enables completion of commands and options in a shell.

    \b
    ~/.bashrc:                   eval "$(mlaas completion bash)"
    ~/.zshrc:                    eval "$(mlaas completion zsh)"
    ~/.config/fish/config.fish:  mlaas completion fish | source
    """
    from click.shell_completion import get_completion_class

    its = get_completion_class(shell)
    assert its is not None
    click.echo(its(context.find_root().command, {}, "mlaas", "_MLAAS_COMPLETE").source())


def main() -> None:
    """Runs the command. Errors that the user can fix are printed on one line, without a traceback."""
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


def end_with_parent() -> None:
    """Makes this process terminate once its supervisor is gone: the pipe on standard input closes."""

    def wait_for_end() -> None:
        while os.read(sys.stdin.fileno(), 1024):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait_for_end, name="end-with-parent", daemon=True).start()


def found_by_children() -> None:
    """Puts a checkout on the PYTHONPATH of child processes, whatever their working directory.

    They start with -P, so that no module in the working directory can shadow one of this project.
    """
    root = Path(__file__).resolve().parents[1]
    known = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if root.name not in _INSTALLED_IN and str(root) not in known:
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(root), *known]))
