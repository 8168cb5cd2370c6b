"""The model process: decodes each picture on its own, predicts on the batch, knows nothing of brokers.

Started by worker.model_process as `python -m worker.model_main FD SETTINGS`. Ends with its consumer.
"""

import logging
import signal
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from messaging.contract import ErrorCode
from model.classifier import Classifier, load
from model.manifest import ModelError
from model.preprocessing import PictureError, decode
from model.settings import ModelSettings
from worker.pipe import Loaded, LoadFailed, Outcome, Predicted, receive_pictures, send_answer

_log = logging.getLogger("mlaas.model")


def main(arguments: list[str]) -> None:
    # Ctrl-C reaches every process of the terminal; this one ends when its consumer closes the pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = Connection(int(arguments[0]))
    settings = msgspec.json.decode(arguments[1], type=ModelSettings)
    try:
        classifier = load(Path(settings.weights_dir), settings.name, settings.runtime, settings.threads)
    except ModelError as error:
        send_answer(connection, LoadFailed(str(error)))
        return
    manifest = classifier.manifest
    send_answer(
        connection, Loaded(manifest.name, manifest.version, classifier.runtime, list(manifest.labels))
    )
    try:
        while True:
            send_answer(connection, predict(classifier, receive_pictures(connection), settings.max_pixels))
    except (EOFError, ConnectionError):
        return


def predict(classifier: Classifier, pictures: list[bytes], max_pixels: int) -> Predicted:
    """One picture that cannot be decoded fails alone."""
    outcomes: list[Outcome] = []
    decoded: list[NDArray[np.uint8]] = []
    for picture in pictures:
        started = time.perf_counter()
        try:
            decoded.append(decode(picture, max_pixels=max_pixels))
            outcomes.append(Outcome(decode_ms=(time.perf_counter() - started) * 1000))
        except PictureError as error:
            outcomes.append(Outcome(error=ErrorCode.INVALID_PICTURE, detail=str(error)))
    if not decoded:
        return Predicted(outcomes, 0.0)
    started = time.perf_counter()
    rows = iter(classifier.predict(np.stack(decoded)).tolist())
    infer_ms = (time.perf_counter() - started) * 1000
    return Predicted(
        [
            outcome if outcome.error else msgspec.structs.replace(outcome, probabilities=next(rows))
            for outcome in outcomes
        ],
        infer_ms,
    )


if __name__ == "__main__":
    main(sys.argv[1:])
