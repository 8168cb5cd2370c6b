"""The real model process, but for three pictures: one kills it, one hangs it, one makes it raise.

Run by the tests in the place of worker.model_main. Marks are appended to a PNG, whose decoder ignores them.
"""

import os
import signal
import sys
import time

from worker import model_main

KILL = b"kill the process"
HANG = b"hang the process"
RAISE = b"raise in the process"


def predict(models, pictures, max_pixels):
    for picture in pictures:
        if picture.content.endswith(KILL):
            os.kill(os.getpid(), signal.SIGSEGV)
        if picture.content.endswith(HANG):
            time.sleep(3600)
        if picture.content.endswith(RAISE):
            raise RuntimeError("a defect in the model's code")
    return real_predict(models, pictures, max_pixels)


real_predict = model_main.predict

if __name__ == "__main__":
    model_main.predict = predict
    model_main.main(sys.argv[1:])
