"""The page on the Open Inference Protocol, running what it shows, and whom to ask by it."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tritonclient.http as triton

from tests import image_models, second_model, tensor_models
from tests.e2e.services import PATIENCE_S, ROOT, up

PAGE = (ROOT / "docs" / "open-inference-protocol.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def run(command: list[str], **more: Any) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, **more)
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def unlike_models(weights_dir: Path) -> Iterator[str]:
    """The URL of a gateway that serves models of every kind."""
    second_model.copy_shipped(weights_dir)
    image_models.write_colours(weights_dir)
    tensor_models.write_iris(weights_dir)
    tensor_models.write_level(weights_dir)
    tensor_models.write_words(weights_dir)
    names = "[fashion-mnist, colours, iris, level, words]"
    with up(MLAAS_MODEL__NAMES=names, MLAAS_MODEL__WEIGHTS_DIR=str(weights_dir)) as (_, url):
        yield url


@contextmanager
def triton_client(url: str) -> Iterator[triton.InferenceServerClient]:
    host = url.removeprefix("http://")
    with triton.InferenceServerClient(
        host, network_timeout=PATIENCE_S, connection_timeout=PATIENCE_S
    ) as client:
        yield client
