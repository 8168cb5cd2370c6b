"""A model process that sleeps SIMULATED_BATCH_MS for each batch and uses no CPU. See tests.faults.planted."""

import os
import sys
import time
from multiprocessing.connection import Connection

import msgspec

from messaging.contract import ServedModel
from worker.model_main import serve
from worker.pipe import (
    Assignment,
    Decoded,
    Loaded,
    LoadedVersion,
    Outcome,
    Pictures,
    Predicted,
    Role,
    send_answer,
)

_LABELS = [f"label {number}" for number in range(10)]


def main(arguments: list[str]) -> None:
    role, descriptor, given = arguments
    connection = Connection(int(descriptor))
    if role == Role.DECODER:  # the bench's pictures need none
        send_answer(connection, Loaded())
        serve(connection, lambda _: Decoded(detail="the simulated model has no decoder"))
        return
    batch_s = float(os.environ["SIMULATED_BATCH_MS"]) / 1000
    assignment = msgspec.json.decode(given, type=Assignment)
    models = [ServedModel(name=name, version=its, labels=_LABELS) for name, its in assignment.versions]
    send_answer(connection, Loaded([LoadedVersion(model, None) for model in models]))
    answer = Outcome(probabilities=[0.1] * len(_LABELS), mode="raw28")

    def predict(pictures: Pictures) -> Predicted:
        time.sleep(batch_s)
        return Predicted([answer] * len(pictures))

    serve(connection, predict)


if __name__ == "__main__":
    main(sys.argv[1:])
