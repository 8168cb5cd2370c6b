"""The real model process, but that each picture takes its time. See tests.faults.planted."""

import sys
import time
from collections.abc import Mapping

from model.classifier import Classifier
from worker import model_main
from worker.pipe import Pictures, Predicted

PICTURE_S = 0.003

real_predict = model_main.predict


def predict(models: Mapping[str, Classifier], pictures: Pictures, max_pixels: int) -> Predicted:
    time.sleep(PICTURE_S * len(pictures))
    return real_predict(models, pictures, max_pixels)


if __name__ == "__main__":
    model_main.predict = predict
    model_main.main(sys.argv[1:])
