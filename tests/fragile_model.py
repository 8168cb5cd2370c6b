"""The worker's real processes, but for some pictures: they kill the process that prepares them, hang it, keep
it busy for ever, make it raise, have it write to standard error, or are held up until a file is there. One
gets probabilities that are no numbers. Loading the model that DEADLY_MODEL names kills it, too.

Run by the tests in the place of worker.model_main. Marks are appended to a PNG, whose decoder ignores them.
"""

import math
import os
import signal
import sys
import time
from pathlib import Path

import msgspec

from worker import model_main
from worker.pipe import Predicted

KILL = b"kill the process"
HANG = b"hang the process"
SPIN = b"spin in the process"
RAISE = b"raise in the process"
NAN = b"not a number"
FLOOD = b"write a million lines"
HOLD_UP = b"hold this picture up until there is "


def harm(content):
    if content.endswith(KILL):
        signal.raise_signal(signal.SIGSEGV)  # to this very thread, as a defect would
    if content.endswith(HANG):
        time.sleep(3600)
    if content.endswith(FLOOD):
        for _ in range(1_000):
            os.write(2, b"\x1b[0;93m[W:a library] a forged line\r\x1b[2K\x1b[m\n" * 1_000)
    if content.endswith(RAISE):
        raise RuntimeError("a defect in the model's code")
    while content.endswith(SPIN):
        pass
    _, held_up, path = content.rpartition(HOLD_UP)
    if held_up:
        begun(Path(path.decode())).touch()
    while held_up and not Path(path.decode()).exists():
        time.sleep(0.01)


def begun(until):
    """There is this file once a picture is held up until there is the other."""
    return until.with_name(f"{until.name} begun")


def prepare_for(manifest, content, **options):
    harm(content)
    return real_prepare_for(manifest, content, **options)


def predict(models, pictures, max_pixels):
    predicted = real_predict(models, pictures, max_pixels)
    return Predicted([spoiled(*each) for each in zip(pictures, predicted.outcomes, strict=True)])


def spoiled(picture, outcome):
    if not getattr(picture, "content", b"").endswith(NAN):
        return outcome
    return msgspec.structs.replace(outcome, probabilities=[math.nan] * len(outcome.probabilities))


def load(weights_dir, name, *options):
    if name == os.environ.get("DEADLY_MODEL"):
        signal.raise_signal(signal.SIGSEGV)
    return real_load(weights_dir, name, *options)


real_load = model_main.load
real_predict = model_main.predict
real_prepare_for = model_main.prepare_for

if __name__ == "__main__":
    model_main.prepare_for = prepare_for
    model_main.predict = predict
    model_main.load = load
    model_main.main(sys.argv[1:])
