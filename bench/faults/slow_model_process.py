"""The real model process, but that each batch takes its time. See bench.faults.planted."""

import sys
import time
from typing import Any

from bench.faults.planted import SLOW_BATCH_S
from worker import inference, model_main


def predict(*arguments: Any) -> Any:
    time.sleep(SLOW_BATCH_S)
    return inference.predict(*arguments)


if __name__ == "__main__":
    model_main.predict = predict
    model_main.main(sys.argv[1:])
