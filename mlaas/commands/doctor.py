"""doctor: which link is broken."""

import os
import sys
from typing import TYPE_CHECKING

import click

from mlaas.chosen import Chosen, pass_chosen
from mlaas.commands.ask import JSON
from mlaas.commands.serve import BROKER

if TYPE_CHECKING:
    from mlaas.checkup import Finding
    from mlaas.settings import Settings


@click.command(short_help="Say which part is broken, and what mends it.")
@click.option(
    "--url", metavar="URL", help="The gateway.  [default: MLAAS_URL, else gateway.host and gateway.port]"
)
@BROKER
@JSON
@pass_chosen
def doctor(chosen: Chosen, url: str | None, broker: str | None, as_json: bool) -> None:
    """Check settings, model, broker, topics, worker and gateway, and send a picture through.

    One line each: ok, FAILED with what mends it, or -- where something else must be mended first. Ends with 1
    if anything failed.
    """
    found = _examine(chosen, url, broker)
    if as_json:
        import msgspec

        click.echo(msgspec.json.encode(found).decode())
    else:
        from mlaas.checkup import lines

        for line in lines(found):
            click.echo(line)
    if any(its.status == "failed" for its in found):
        sys.exit(1)


def _examine(chosen: Chosen, url: str | None, broker: str | None) -> "list[Finding]":
    from mlaas import checkup
    from mlaas.settings import SettingsError

    try:
        settings = chosen.load("doctor", broker__url=broker, log__level="error")
    except SettingsError as error:
        return [checkup.failed("settings", str(error), "`mlaas config show` prints what results")]
    from mlaas.doctor import look

    url = url or os.environ.get("MLAAS_URL") or _its_own(settings)
    url = url if "://" in url else f"http://{url}"
    return [checkup.ok("settings", "can be read"), *checkup.findings(look(settings, url.rstrip("/")))]


def _its_own(settings: "Settings") -> str:
    from mlaas.up import reachable

    host = reachable(settings.gateway.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.gateway.port}"


COMMANDS = (doctor,)
