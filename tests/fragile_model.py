"""The real model process, but for some pictures: one kills it, one hangs it, one makes it raise, one gets
probabilities that are no numbers, and one is held up until another was predicted.

Run by the tests in the place of worker.model_main. Marks are appended to a PNG, whose decoder ignores them.
"""

import math
import signal
import sys
import threading
import time

import msgspec

from worker import model_main
from worker.pipe import Predicted

KILL = b"kill the process"
HANG = b"hang the process"
RAISE = b"raise in the process"
NAN = b"not a number"
HOLD_UP = b"hold this picture up"

predicted_another = threading.Event()


def predict(models, pictures, max_pixels):
    for picture in pictures:
        if picture.content.endswith(KILL):
            signal.raise_signal(signal.SIGSEGV)  # to this very thread, as a defect would
        if picture.content.endswith(HANG):
            time.sleep(3600)
        if picture.content.endswith(RAISE):
            raise RuntimeError("a defect in the model's code")
        if picture.content.endswith(HOLD_UP):
            predicted_another.wait()
    predicted = real_predict(models, pictures, max_pixels)
    predicted_another.set()
    return Predicted([spoiled(*each) for each in zip(pictures, predicted.outcomes, strict=True)])


def spoiled(picture, outcome):
    if not picture.content.endswith(NAN):
        return outcome
    return msgspec.structs.replace(outcome, probabilities=[math.nan] * len(outcome.probabilities))


real_predict = model_main.predict

if __name__ == "__main__":
    model_main.predict = predict
    model_main.main(sys.argv[1:])
