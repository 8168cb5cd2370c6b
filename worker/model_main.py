"""A process of the worker: the one with the models, or one that prepares large pictures for it.

Started by worker.model_process as `python -P -m worker.model_main ROLE FD SETTINGS`, with the descriptor of
its end of the pipe. Knows nothing of brokers, and ends with its consumer.
"""

import os
import resource
import signal
import sys
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path

import msgspec

from model.classifier import Classifier, load
from model.manifest import ModelError
from model.settings import ModelSettings
from worker import inference
from worker.inference import predict
from worker.pipe import Answer, Loaded, LoadedModel, LoadFailed, Picture, Pictures, Role, receive_pictures
from worker.pipe import send_answer as send

_INPUT = "{shape} grey, 0 to 255, bright clothing on black; a PNG, JPEG or WebP picture is made into it"

# Small pictures go first if there are too few processors.
_DECODER_NICENESS = 10
# Of a decoder: what it has without a picture, thread stacks included, and half as much again as decoding
# takes at most, which is 16 bytes for a pixel.
_IDLE_BYTES, _BYTES_PER_PIXEL = 192 * 1024 * 1024, 24


def main(arguments: list[str]) -> None:
    role, descriptor, given = arguments
    # Ctrl-C reaches every process of the terminal; this one ends when its consumer closes the pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection, settings = Connection(int(descriptor)), msgspec.json.decode(given, type=ModelSettings)
    if role == Role.DECODER:
        be_a_decoder(settings.max_pixels)
        send(connection, Loaded([]))
        serve(connection, lambda pictures: inference.decode(_only(pictures), settings.max_pixels))
        return
    try:
        models = load_all(settings)
    except ModelError as error:
        send(connection, LoadFailed(str(error)))
        return
    send(connection, Loaded([_describe(name, model) for name, model in models.items()]))
    serve(connection, lambda pictures: predict(models, pictures, settings.max_pixels))


def load_all(settings: ModelSettings) -> Mapping[str, Classifier]:
    """By name, each checked and warm, the default first. Raises ModelError."""
    weights_dir = Path(settings.weights_dir)
    return {name: load(weights_dir, name, settings.runtime, settings.threads) for name in settings.names}


def be_a_decoder(max_pixels: int) -> None:
    """Polite, and bounded in memory: over it a picture fails with MemoryError."""
    os.nice(_DECODER_NICENESS)
    most = _IDLE_BYTES + _BYTES_PER_PIXEL * max_pixels
    _, given = resource.getrlimit(resource.RLIMIT_DATA)
    if given == resource.RLIM_INFINITY or most < given:
        resource.setrlimit(resource.RLIMIT_DATA, (most, given))


def serve(connection: Connection, answer: Callable[[Pictures], Answer]) -> None:
    """Until the consumer is gone."""
    try:
        while True:
            send(connection, answer(receive_pictures(connection)))
    except (EOFError, ConnectionError):
        return


def _only(pictures: Pictures) -> Picture:
    (picture,) = pictures
    assert isinstance(picture, Picture)
    return picture


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
