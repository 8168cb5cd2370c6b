"""jobs, models: what the gateway has."""

import json
from typing import TYPE_CHECKING

import click

from mlaas.commands.ask import FILES, JSON, MODE, MODEL, URL, is_json, show

if TYPE_CHECKING:
    from messaging.contract import Mode
    from mlaas_client import Job

ID = click.argument("job_id", metavar="ID")
_PATIENCE_S = 20.0


@click.group()
def jobs() -> None:
    """Hand pictures over now, get the answers later."""


@jobs.command()
@FILES
@URL
@MODEL
@MODE
@JSON
def submit(
    files: tuple[str, ...], url: str | None, model: str | None, mode: "Mode | None", as_json: bool
) -> None:
    """Hand pictures over. Prints the job's id, for `mlaas jobs get`."""
    from mlaas import asking

    its = list(asking.named(files))
    for name, picture in its:
        if not (isinstance(picture, bytes) or picture.is_file()):
            raise click.ClickException(f"{name}: no such file; nothing was handed over")
    if not its:
        raise click.ClickException(f"no pictures in {', '.join(files)}")
    with asking.client(url) as client:
        job = client.submit([named.picture for named in its], model=model, mode=mode)
    click.echo(json.dumps(job.raw) if as_json else job.id)


@jobs.command()
@ID
@click.option("--wait", is_flag=True, help="Until it is over.")
@URL
@JSON
def get(job_id: str, wait: bool, url: str | None, as_json: bool) -> None:
    """Print what is known of a job: its finished pictures as `mlaas predict` does, or all of it by --json."""
    from mlaas import asking

    with asking.client(url) as client:
        job = client.result(job_id, wait_s=_PATIENCE_S if wait else 0)
        while wait and not job.is_over:
            job = client.result(job_id, wait_s=_PATIENCE_S)
    _print(job, as_json)


@jobs.command()
@ID
@URL
@JSON
def cancel(job_id: str, url: str | None, as_json: bool) -> None:
    """Give a job up. What is finished is kept, and printed."""
    from mlaas import asking

    with asking.client(url) as client:
        _print(client.cancel(job_id), as_json)


def _print(job: "Job", as_json: bool) -> None:
    from mlaas import asking

    click.echo(f"{job.id}: {job.status}, {job.completed} of {job.total}", err=True)
    if as_json:
        return click.echo(json.dumps(job.raw))
    show([asking.answer(item.filename, item.outcome) for item in job.items], as_json)


@click.command()
@URL
@JSON
def models(url: str | None, as_json: bool) -> None:
    """List the models that are served."""
    from mlaas import asking
    from mlaas.columns import aligned, harmless

    with asking.client(url) as client:
        served = client.models()
    if is_json(as_json):
        for model in served:
            click.echo(json.dumps(model.raw))
        return
    rows = [
        (
            harmless(model.name),
            harmless(model.version),
            "yes" if model.default else "",
            harmless(model.runtime),
            "" if model.accuracy is None else f"{model.accuracy:8.2%}",
        )
        for model in served
    ]
    for line in aligned([("NAME", "VERSION", "DEFAULT", "RUNTIME", "ACCURACY"), *rows]):
        click.echo(line)


COMMANDS = (jobs, models)
