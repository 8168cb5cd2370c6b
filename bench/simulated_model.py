"""A model process without a model: a batch takes a fixed time and no processor. See bench.faults.planted.

The time is in milliseconds in SIMULATED_BATCH_MS; every picture gets the same answer.
"""

import os
import sys
import time
from multiprocessing.connection import Connection

from worker.pipe import Loaded, LoadedModel, Outcome, Predicted, receive_pictures, send_answer

_LABELS = [f"label {number}" for number in range(10)]


def main(arguments: list[str]) -> None:
    connection = Connection(int(arguments[0]))
    batch_s = float(os.environ["SIMULATED_BATCH_MS"]) / 1000
    send_answer(connection, Loaded([LoadedModel("simulated", "1", "none", _LABELS)]))
    answer = Outcome(probabilities=[0.1] * len(_LABELS), mode="raw28")
    try:
        while True:
            pictures = receive_pictures(connection)
            time.sleep(batch_s)
            send_answer(connection, Predicted([answer] * len(pictures)))
    except (EOFError, ConnectionError):
        return


if __name__ == "__main__":
    main(sys.argv[1:])
