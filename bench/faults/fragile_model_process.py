"""The real model process, but that marked pictures crash or hang it. See bench.faults.planted."""

import sys
from typing import Any

from bench.faults.planted import crash_or_hang
from worker import inference, model_main


def predict(models: Any, pictures: Any, max_pixels: int) -> Any:
    for picture in pictures:
        crash_or_hang(picture.content)
    return inference.predict(models, pictures, max_pixels)


if __name__ == "__main__":
    model_main.predict = predict
    model_main.main(sys.argv[1:])
