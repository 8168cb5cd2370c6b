"""Decoding and the network alone, in one process and thread: `python -m bench.limits.model_alone JPEG`."""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import msgspec
import numpy as np

from model.classifier import load
from model.preprocessing import prepare
from tests.e2e.services import ROOT, SAMPLES

BATCHES = (1, 2, 4, 8, 16, 32)
_MAX_PIXELS = 25_000_000


class ModelAlone(msgspec.Struct, frozen=True):
    """Medians. inference_ms: by the number of pictures. pictures_per_s: decoded, run in batches of 32."""

    inference_ms: dict[int, float]
    decode_small_ms: float
    decode_large_ms: float
    pictures_per_s: float


def measure(large: Path, seconds: float) -> ModelAlone:
    classifier = load(ROOT / "weights", "fashion-mnist", "onnx", 1)
    small = [path.read_bytes() for path in SAMPLES]
    batch = [small[number % len(small)] for number in range(max(BATCHES))]
    photo = large.read_bytes()

    def pixels(pictures: list[bytes]) -> np.ndarray:
        return np.stack([prepare(one, max_pixels=_MAX_PIXELS).pixels for one in pictures])

    seen = pixels(batch)
    share_s = seconds / (len(BATCHES) + 3)
    return ModelAlone(
        inference_ms={
            size: _median_ms(lambda size=size: classifier.predict(seen[:size]), share_s)  # type: ignore[misc]
            for size in BATCHES
        },
        decode_small_ms=_median_ms(lambda: pixels(small), share_s) / len(small),
        decode_large_ms=_median_ms(lambda: pixels([photo]), share_s),
        pictures_per_s=1000 * len(batch) / _median_ms(lambda: classifier.predict(pixels(batch)), share_s),
    )


def _median_ms(work: Callable[[], object], seconds: float) -> float:
    """At least three times, after one to warm up."""
    work()
    took_ms: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(took_ms) < 3:
        started = time.perf_counter()
        work()
        took_ms.append((time.perf_counter() - started) * 1000)
    return median(took_ms)


def main() -> None:
    parser = argparse.ArgumentParser(description="Time decoding and the network alone; print JSON.")
    parser.add_argument("large", type=Path, help="a large JPEG")
    parser.add_argument("--seconds", type=float, default=5)
    chosen = parser.parse_args()
    print(msgspec.json.encode(measure(chosen.large, chosen.seconds)).decode())


if __name__ == "__main__":
    main()
