"""The extras that mlaas can be installed with, and which of them provides a missing package."""

import re
from importlib import metadata

_IMPORTED_AS = {"PIL": "pillow", "skimage": "scikit-image", "sklearn": "scikit-learn"}


def require(*extras: str) -> None:
    """Raises ModuleNotFoundError for the first package of these extras that is not installed.

    For a process whose child processes would fail without it.
    """
    for package, extra in _packages():
        if extra in extras:
            try:
                metadata.version(package)
            except metadata.PackageNotFoundError as error:
                raise ModuleNotFoundError(name=package) from error


def advice(error: ModuleNotFoundError) -> str:
    """Which extra to install, in one line."""
    module = (error.name or str(error)).partition(".")[0]
    package = _IMPORTED_AS.get(module, module).replace("_", "-").lower()
    extra = next((extra for name, extra in _packages() if name == package), "all")
    everything = ", or 'CHECKOUT[all]' for everything but training" if extra not in ("all", "train") else ""
    return f"{module} is not installed: run pip install 'CHECKOUT[{extra}]'{everything}"


def _packages() -> list[tuple[str, str]]:
    """Each package with its extra; none where mlaas is not installed, as in an image."""
    try:
        lines = metadata.requires("mlaas") or ()
    except metadata.PackageNotFoundError:
        return []
    found = (re.match(r"""([\w.-]+).*extra == ["'](\w+)["']""", line) for line in lines)
    return [(match[1].lower(), match[2]) for match in found if match]
