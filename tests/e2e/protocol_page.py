"""The page on the Open Inference Protocol, and running what it shows."""

import re
import subprocess
from typing import Any

from tests.e2e.services import ROOT

PAGE = (ROOT / "docs" / "open-inference-protocol.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def run(command: list[str], **more: Any) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, **more)
    assert done.returncode == 0, done.stderr
    return done.stdout
