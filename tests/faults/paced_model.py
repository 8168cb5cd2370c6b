"""The real model process, slowed down by PACED_BATCH_S and PACED_PICTURE_S. See tests.faults.planted.

PACED_MODEL: only pictures for the model of this name take PACED_PICTURE_S.
"""

import os
import sys
import time
from collections.abc import Mapping

from model.classifier import Classifier
from worker import model_main
from worker.pipe import ModelVersion, Pictures, Predicted

real_predict = model_main.predict


def predict(models: Mapping[ModelVersion, Classifier], pictures: Pictures, max_pixels: int) -> Predicted:
    names = [each.model[0] for each in pictures]
    paced = [name for name in names if os.environ.get("PACED_MODEL", name) == name]
    pause_s = float(os.environ["PACED_BATCH_S"]) + float(os.environ["PACED_PICTURE_S"]) * len(paced)
    time.sleep(pause_s)
    return real_predict(models, pictures, max_pixels)


if __name__ == "__main__":
    model_main.predict = predict
    model_main.main(sys.argv[1:])
