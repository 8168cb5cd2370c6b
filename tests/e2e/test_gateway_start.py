"""What a gateway does on its own, before there is a broker."""

import os
import subprocess
import sys
from pathlib import Path

from tests.e2e.services import PATIENCE_S, ROOT

_RUN_AND_LOOK = """
import gc, os, signal, sys, threading, time
from mlaas.cli import main

def look():
    while not gc.get_freeze_count():
        time.sleep(0.01)
    print("looks for garbage:", gc.isenabled())
    os.kill(os.getpid(), signal.SIGTERM)

threading.Thread(target=look, daemon=True).start()
sys.argv = ["mlaas", "gateway", "--port", "0", "--broker", "memory://"]
main()
"""


def test_garbage_is_looked_for_once_all_is_loaded(tmp_path: Path) -> None:
    said = subprocess.run(
        [sys.executable, "-c", _RUN_AND_LOOK],
        cwd=ROOT, env={**os.environ, "MLAAS_JOBS__STORE": f"sqlite:///{tmp_path}/jobs"},
        capture_output=True, text=True, timeout=PATIENCE_S,
    )  # fmt: skip
    assert said.stdout == "looks for garbage: True\n", said.stderr
