"""train."""

import os
import sys
from pathlib import Path

import click

from mlaas.chosen import Chosen, pass_chosen
from mlaas.commands.evaluate import write_report


@click.command(short_help="Train a model, and report what it is worth.")
@click.option("--epochs", type=int, help="How many passes over the training pictures.")
@click.option(
    "--seed", type=int, help="Another seed gives other first weights, and another order of pictures."
)
@click.option("--name", help="What to call the model, and its files.")
@pass_chosen
def train(chosen: Chosen, epochs: int | None, seed: int | None, name: str | None) -> None:
    """Train a model; write it to weights/, and what it is worth to reports/ and docs/.

    Where its teacher is missing, that is trained first; --set train.teacher.name= goes without one.
    Ctrl-C stops; the same command goes on where it was.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # its notes on the processor go to every terminal
    from mlaas.teachers import with_teacher
    from model.training.train import train as run

    chosen_settings = chosen.load("train", train__epochs=epochs, train__seed=seed, train__name=name)
    for settings in with_teacher(chosen_settings):
        recipe, weights_dir = settings.train, Path(settings.model.weights_dir)
        if settings is not chosen_settings:
            click.echo(f"{recipe.name} is not in {weights_dir}, and teaches: it is trained first.")
        manifest = run(recipe, weights_dir, click.echo, progress_bar=sys.stdout.isatty())
        click.echo(
            f"{manifest.name} {manifest.version}: {manifest.metrics.accuracy:.2%} on the test pictures"
        )
        write_report(settings, manifest.name)


COMMANDS = (train,)
