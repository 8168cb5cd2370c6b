"""Runs Google's fake of Cloud Pub/Sub on this machine: `python -m tests.pubsub.local_pubsub`.

Go builds it from main.go, once, into a cache folder. What it holds is in memory.
"""

import argparse
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Self

from deploy.kafka.local_kafka import CACHE, HOST, free_port

SOURCE = Path(__file__).parent

# Optimizing, and what debuggers want, would take half as long again, for a program that is only for tests.
BUILD = ("go", "build", "-buildvcs=false", "-gcflags=all=-N -l -dwarf=false", "-ldflags=-s -w")

NEXT = """Ready. In another terminal, start gateway and worker on it, with the topics that they need:

  PUBSUB_EMULATOR_HOST={host} .venv/bin/mlaas up --broker pubsub://demo

It is Google's own fake (pstest): for trying and testing, not for measuring. Ctrl-C stops it, and forgets all.
"""


def missing_tools() -> str | None:
    """What to install to run the fake here; None if everything is installed."""
    if shutil.which("go"):
        return None
    return "Go is needed for the fake of Google Pub/Sub: `apt install golang-go` or `brew install go`"


def build(cache: Path = CACHE) -> Path:
    """The program, built if the cache has none of this source. Raises RuntimeError if that fails."""
    sources = [SOURCE / name for name in ("main.go", "go.mod", "go.sum")]
    digest = hashlib.sha256(b"\0".join(file.read_bytes() for file in sources)).hexdigest()[:12]
    program = cache / "pubsub" / digest / "pubsub"
    if not program.exists():
        program.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=program.parent) as folder:
            built = Path(folder, "pubsub")
            command, without_c = [*BUILD, "-o", str(built), "."], os.environ | {"CGO_ENABLED": "0"}
            done = subprocess.run(command, cwd=SOURCE, env=without_c, capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(f"Go could not build the fake of Pub/Sub:\n{done.stderr[-2000:]}")
            built.replace(program)  # the last of concurrent ones wins: they are the same
    return program


class LocalPubSub:
    """The fake, on a port of its own, until the end of the block or of this process. A context manager."""

    def __init__(self, port: int = 0, cache: Path = CACHE) -> None:
        self.host = f"{HOST}:{port or free_port()}"
        self._cache = cache

    def away(self) -> None:
        """Close the port and all connections, as if the network was gone. It keeps what it holds."""
        self._say("away")

    def back(self) -> None:
        self._say("back")

    def freeze(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait(self) -> None:
        """Waits until the fake exits by itself."""
        self._process.wait()

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [build(self._cache), self.host],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "GOMAXPROCS": "2"},
        )
        self._expect("ready")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def _say(self, command: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()
        self._expect(command)

    def _expect(self, word: str) -> None:
        assert self._process.stdout
        if (said := self._process.stdout.readline().strip()) != word:
            raise RuntimeError(f"the fake of Pub/Sub said {said!r} instead of {word!r}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Run Google's fake of Cloud Pub/Sub until Ctrl-C.")
    parser.add_argument("--port", type=int, default=8085)
    options = parser.parse_args()
    if problem := missing_tools():
        sys.exit(problem)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    print("starting the fake; the first time, Go builds it, which takes two minutes", file=sys.stderr)
    try:
        with LocalPubSub(options.port) as fake:
            print(fake.host, flush=True)
            print(NEXT.format(host=fake.host), file=sys.stderr, flush=True)
            fake.wait()
            sys.exit("the fake ended unexpectedly")
    except KeyboardInterrupt:
        pass
    except RuntimeError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
