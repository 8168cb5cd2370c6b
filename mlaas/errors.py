"""How commands fail: with an exit status and one line that says what to do, not with a traceback.

Errors of other packages are imported only where they are translated: the gateway's image has no client, and
the worker's has no gateway.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from mlaas_client import MlaasError

_IMPORTED_AS = {
    "PIL": "pillow",
    "google": "google-cloud-pubsub",
    "grpc": "google-cloud-pubsub",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
}
_ROOT = Path(__file__).parents[1]
_OURS = ("gateway.", "messaging.", "mlaas_client", "model.", "worker.")
# The details of these problems list the valid names.
_NEED_NO_HINT = tuple(
    f"urn:mlaas:problem:{kind}" for kind in ("unknown-model", "unknown-job", "jobs-not-listed")
)


class UserError(click.ClickException):
    """Ends the command with a message, a hint on what to do, and an exit status.

    exit_code is 1, or one of sysexits.h where scripts may need to tell causes apart.
    """

    exit_code: int  # type: ignore[misc]

    def __init__(self, message: str, hint: str = "", exit_code: int = 1) -> None:
        super().__init__(" ".join(message.split()))
        self.hint = hint
        self.exit_code = exit_code

    def __str__(self) -> str:
        return self.format_message()

    def format_message(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"mlaas: {self.format_message()}", file, err=True)


@contextmanager
def reported(exit_code: int, *errors: type[Exception]) -> Iterator[None]:
    """Turns errors of these types, whose messages say what to do, into UserError."""
    try:
        yield
    except errors as error:
        raise UserError(str(error), exit_code=exit_code) from error


@contextmanager
def broker_errors(
    hint: str = "is the broker running? Use --broker for another; `mlaas up` prints the URL of its own",
) -> Iterator[None]:
    """Turns BrokerError into UserError. hint: for a broker that does not answer."""
    from messaging.broker import BrokerError, BrokerRefuses, BrokerUnavailable

    try:
        yield
    except BrokerError as error:
        is_away = isinstance(error, BrokerUnavailable) and not isinstance(error, BrokerRefuses)
        raise UserError(str(error), hint if is_away else "", os.EX_UNAVAILABLE) from error


def of_gateway(error: "MlaasError") -> UserError:
    """The UserError for an error of the client, with a hint on what to do."""
    from mlaas_client import errors

    hints = {
        errors.DeadlineExceeded: "`mlaas doctor` checks every part",
        errors.NotFound: "is this an mlaas gateway of the same version?",
        errors.Overloaded: "try again later, or send fewer pictures at once",
        errors.ServerFailed: "see the gateway's log",
        errors.Unauthorized: "set MLAAS_API_KEY to a valid key",
        errors.Unavailable: "`mlaas doctor` names the missing part",
        errors.Unreachable: "is it running? `mlaas up` starts it; use --url or MLAAS_URL for another address",
    }
    hint = "" if error.problem.get("type") in _NEED_NO_HINT else hints.get(type(error), "")
    if hint and error.request_id:
        hint += f" (request {error.request_id})"
    return UserError(str(error), hint)


def require(*extras: str) -> None:
    """Raises UserError if a package that belongs to one of these extras of mlaas is not installed.

    It fails early in a process whose child processes need the package.
    """
    from importlib import metadata

    for package, extra in _packages():
        if extra in extras:
            try:
                metadata.version(package)
            except metadata.PackageNotFoundError as error:
                raise of_missing_package(package) from error


def of_missing_package(module: str) -> UserError:
    """The UserError that names what to install for this module: an extra of mlaas; in a checkout, all.

    In a checkout, an extra would replace the editable installation by a copy. Images have only the modules of
    ours that gateways or workers need.
    """
    if module.startswith(_OURS):
        missing = f"{module} is not in this image"
        return UserError(missing, "run the command where the whole service is installed")
    module = module.partition(".")[0]
    package = _IMPORTED_AS.get(module, module).replace("_", "-").lower()
    if (_ROOT / "Makefile").is_file():
        return UserError(f"{package} is not installed: run make install in {_ROOT}")
    extra = next((extra for name, extra in _packages() if name == package), "all")
    everything = ", or 'CHECKOUT[all]' for everything but training" if extra not in ("all", "train") else ""
    return UserError(f"{package} is not installed: run pip install 'CHECKOUT[{extra}]'{everything}")


def _packages() -> list[tuple[str, str]]:
    """Pairs of package and extra. None if mlaas runs without being installed, as it does in an image."""
    import re
    from importlib import metadata

    try:
        lines = metadata.requires("mlaas") or ()
    except metadata.PackageNotFoundError:
        return []
    found = (re.match(r"""([\w.-]+).*extra == ["'](\w+)["']""", line) for line in lines)
    return [(match[1].lower(), match[2]) for match in found if match]
