"""The real model process, but for some pictures: one kills it, one hangs it, one makes it raise, and one is
held up until another was predicted.

Run by the tests in the place of worker.model_main. Marks are appended to a PNG, whose decoder ignores them.
"""

import signal
import sys
import threading
import time

from worker import model_main

KILL = b"kill the process"
HANG = b"hang the process"
RAISE = b"raise in the process"
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
    return predicted


real_predict = model_main.predict

if __name__ == "__main__":
    model_main.predict = predict
    model_main.main(sys.argv[1:])
