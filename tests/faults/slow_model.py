"""The real model process, but that each batch takes its time. See tests.faults.planted."""

import sys
import time
from typing import Any

from worker import model_main

BATCH_S = 1.2

real_predict = model_main.predict


def predict(*arguments: Any) -> Any:
    time.sleep(BATCH_S)
    return real_predict(*arguments)


if __name__ == "__main__":
    model_main.predict = predict
    model_main.main(sys.argv[1:])
