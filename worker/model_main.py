"""The model process: prepares each picture on its own, predicts on the batch, knows nothing of brokers.

Started by worker.model_process as `python -P -m worker.model_main FD... SETTINGS`, with a descriptor for each
lane. Ends with its consumer.
"""

import signal
import sys
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path

import msgspec

from model.classifier import Classifier, load
from model.manifest import ModelError
from model.settings import ModelSettings
from worker.inference import predict
from worker.pipe import Loaded, LoadedModel, LoadFailed, send_answer
from worker.serving import serve

_INPUT = "{shape} grey, 0 to 255, bright clothing on black; a PNG, JPEG or WebP picture is made into it"


def main(arguments: list[str]) -> None:
    # Ctrl-C reaches every process of the terminal; this one ends when its consumer closes the pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    lanes = [Connection(int(descriptor)) for descriptor in arguments[:-1]]
    settings = msgspec.json.decode(arguments[-1], type=ModelSettings)
    try:
        models = load_all(settings)
    except ModelError as error:
        send_answer(lanes[0], LoadFailed(str(error)))
        return
    send_answer(lanes[0], Loaded([_describe(name, model) for name, model in models.items()]))
    serve(lanes, lambda pictures: predict(models, pictures, settings.max_pixels))


def load_all(settings: ModelSettings) -> Mapping[str, Classifier]:
    """By name, each checked and warm, the default first. Raises ModelError."""
    weights_dir = Path(settings.weights_dir)
    return {name: load(weights_dir, name, settings.runtime, settings.threads) for name in settings.names}


def _describe(name: str, model: Classifier) -> LoadedModel:
    manifest = model.manifest
    return LoadedModel(
        name,
        manifest.version,
        model.runtime,
        list(manifest.labels),
        input=_INPUT.format(shape=" x ".join(map(str, manifest.input_shape))),
        sha256=manifest.onnx_sha256 if model.runtime == "onnx" else manifest.keras_sha256,
        accuracy=manifest.metrics.accuracy,
    )


if __name__ == "__main__":
    main(sys.argv[1:])
