"""A model process without a model: a batch takes a fixed time and no processor. See tests.faults.planted.

The time is in milliseconds in SIMULATED_BATCH_MS; every picture gets the same answer.
"""

import os
import sys
import time
from multiprocessing.connection import Connection

from messaging.contract import ServedModel
from worker.model_main import serve
from worker.pipe import Decoded, Loaded, Outcome, Pictures, Predicted, Role, send_answer

_LABELS = [f"label {number}" for number in range(10)]


def main(arguments: list[str]) -> None:
    role, descriptor, _ = arguments
    connection = Connection(int(descriptor))
    if role == Role.DECODER:  # which no picture of the bench needs
        send_answer(connection, Loaded([]))
        serve(connection, lambda _: Decoded(detail="There is no decoder here."))
        return
    batch_s = float(os.environ["SIMULATED_BATCH_MS"]) / 1000
    model = ServedModel(name="simulated", version="1", default=True, runtime="none", labels=_LABELS)
    send_answer(connection, Loaded([model]))
    answer = Outcome(probabilities=[0.1] * len(_LABELS), mode="raw28")

    def predict(pictures: Pictures) -> Predicted:
        time.sleep(batch_s)
        return Predicted([answer] * len(pictures))

    serve(connection, predict)


if __name__ == "__main__":
    main(sys.argv[1:])
