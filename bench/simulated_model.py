"""A model process that sleeps SIMULATED_BATCH_MS for each batch and uses no CPU. See tests.faults.planted."""

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
    if role == Role.DECODER:  # the bench's pictures need none
        send_answer(connection, Loaded([]))
        serve(connection, lambda _: Decoded(detail="the simulated model has no decoder"))
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
