"""jobs: submit jobs and fetch their results."""

import json
from typing import TYPE_CHECKING

import click

from mlaas.commands import JSON, show
from mlaas.commands.predict import FILES, MODE, MODEL, URL, VERSION, answer, gateway, named
from mlaas.errors import UserError

if TYPE_CHECKING:
    from messaging.contract import Mode
    from mlaas_client import Job

ID = click.argument("job_id", metavar="ID")
_LONGEST_WAIT_S = 20.0


@click.group()
def jobs() -> None:
    """Submit pictures now, fetch the results later."""


@jobs.command()
@FILES
@URL
@MODEL
@VERSION
@MODE
@JSON
def submit(
    files: tuple[str, ...],
    url: str | None,
    model: str | None,
    version: str | None,
    mode: "Mode | None",
    as_json: bool,
) -> None:
    """Submit pictures as a job and print its ID.

    Pass the ID to `mlaas jobs get`.
    """
    its = list(named(files))
    for name, picture in its:
        if not (isinstance(picture, bytes) or picture.is_file()):
            raise UserError(f"{name}: no such file; nothing was submitted")
    if not its:
        raise UserError(f"no pictures in {', '.join(files)}")
    with gateway(url) as client:
        job = client.submit([named.picture for named in its], model=model, version=version, mode=mode)
    click.echo(json.dumps(job.raw) if as_json else job.id)


@jobs.command()
@ID
@click.option("--wait", is_flag=True, help="Wait until the job has ended.")
@URL
@JSON
def get(job_id: str, wait: bool, url: str | None, as_json: bool) -> None:
    """Print the results of a job.

    The output is that of `mlaas predict`; with --json, it is the whole job.
    """
    with gateway(url) as client:
        job = client.result(job_id, wait_s=_LONGEST_WAIT_S if wait else 0)
        while wait and not job.is_over:
            job = client.result(job_id, wait_s=_LONGEST_WAIT_S)
    _print(job, as_json)


@jobs.command("list")
@click.option("--limit", type=click.IntRange(1, 100), default=50, show_default=True, help="The most to list.")
@URL
@JSON
def list_own(limit: int, url: str | None, as_json: bool) -> None:
    """List the jobs of your API key, newest first.

    A gateway without API keys lists none, because it cannot tell whose they are.
    """
    with gateway(url) as client:
        found = client.jobs(limit)
    if as_json:
        click.echo(json.dumps([job.raw for job in found]))
        return
    if not found:
        click.echo("no jobs", err=True)
    for job in found:
        click.echo(f"{job.id}  {job.created_at}  {job.status:8}  {job.completed} of {job.total}")


@jobs.command()
@ID
@URL
@JSON
def cancel(job_id: str, url: str | None, as_json: bool) -> None:
    """Cancel a job and print the results it has so far."""
    with gateway(url) as client:
        job = client.cancel(job_id)
    if job.status != "canceled":
        click.echo("nothing was canceled: the job was over", err=True)
    _print(job, as_json)


def _print(job: "Job", as_json: bool) -> None:
    click.echo(f"{job.id}: {job.status}, {job.completed} of {job.total}", err=True)
    if as_json:
        click.echo(json.dumps(job.raw))
    else:
        show([answer(item.filename, item.outcome) for item in job.items], as_json)
