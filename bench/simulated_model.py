"""A model process without a model: a batch takes a fixed time and no processor. See tests.faults.planted.

The time is in milliseconds in SIMULATED_BATCH_MS; every picture gets the same answer.
"""

import os
import sys
import time
from multiprocessing.connection import Connection

from worker.pipe import Loaded, LoadedModel, Outcome, Picture, Predicted, send_answer
from worker.serving import serve

_LABELS = [f"label {number}" for number in range(10)]


def main(arguments: list[str]) -> None:
    lanes = [Connection(int(descriptor)) for descriptor in arguments[:-1]]
    batch_s = float(os.environ["SIMULATED_BATCH_MS"]) / 1000
    send_answer(lanes[0], Loaded([LoadedModel("simulated", "1", "none", _LABELS)]))
    answer = Outcome(probabilities=[0.1] * len(_LABELS), mode="raw28")

    def predict(pictures: list[Picture]) -> Predicted:
        time.sleep(batch_s)
        return Predicted([answer] * len(pictures))

    serve(lanes, predict)


if __name__ == "__main__":
    main(sys.argv[1:])
