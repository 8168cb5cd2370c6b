"""The real model process, slowed down by PACED_BATCH_S and PACED_PICTURE_S. See tests.faults.planted."""

import os
import sys
import time
from collections.abc import Mapping

from model.classifier import Classifier
from worker import model_main
from worker.pipe import Pictures, Predicted

real_predict = model_main.predict


def predict(models: Mapping[str, Classifier], pictures: Pictures, max_pixels: int) -> Predicted:
    pause_s = float(os.environ["PACED_BATCH_S"]) + float(os.environ["PACED_PICTURE_S"]) * len(pictures)
    time.sleep(pause_s)
    return real_predict(models, pictures, max_pixels)


if __name__ == "__main__":
    model_main.predict = predict
    model_main.main(sys.argv[1:])
