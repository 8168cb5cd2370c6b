"""What the bench asks with, made by code and always the same: pictures, and a network of the usual size.

python -m bench.material FOLDER    adds the untrained network to this folder of models
"""

import subprocess
import sys
import tempfile
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from bench.report import MOBILENET, ROOT
from bench.systems import CACHE, PeerFailed
from tests.e2e.services import mlaas

if TYPE_CHECKING:
    from PIL.Image import Image

LARGE_SIZE = (4000, 3000)
USUAL_SIZE = (640, 480)
USUAL_BYTES = 60_000
LABELS = 1000

_SIDE = 224
_MAKING_TIMEOUT_S = 300


def large_photo() -> Path:
    """A 12-megapixel JPEG like a phone's (3 to 6 MB): a sample on a grainy wall."""
    path = CACHE / "photo-12-megapixels.jpg"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        _photo(LARGE_SIZE, grain=7).save(path, quality=90)
    return path


def usual_photo() -> Path:
    """A JPEG of 640 x 480 pixels and about 60 kB, as shops and phones' messages send them."""
    path = CACHE / "photo-60-kilobytes.jpg"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_of_size(_photo(USUAL_SIZE, grain=4), USUAL_BYTES))
    return path


def mobilenet_weights() -> Path:
    """A folder of models with the untrained network alone, made if missing. Raises PeerFailed."""
    folder = CACHE / "weights"
    if not (folder / MOBILENET).exists():
        command = [sys.executable, "-m", "bench.material", str(folder)]
        try:
            made = subprocess.run(
                command, cwd=ROOT, capture_output=True, text=True, timeout=_MAKING_TIMEOUT_S
            )
        except subprocess.TimeoutExpired:
            raise PeerFailed(f"{MOBILENET} not made within {_MAKING_TIMEOUT_S} s") from None
        if made.returncode:
            lines = made.stderr.strip().splitlines() or ["no reason given"]
            raise PeerFailed(f"{MOBILENET} not made: {lines[-1]}")
    return folder


def add_mobilenet(weights_dir: Path) -> None:
    """MobileNetV3Small of Keras with random weights, exported and added as anyone's network is."""
    import keras

    keras.utils.set_random_seed(1)
    network = keras.applications.MobileNetV3Small(
        input_shape=(_SIDE, _SIDE, 3), weights=None, classes=LABELS, include_preprocessing=True
    )
    with tempfile.TemporaryDirectory() as folder:
        file, labels = Path(folder, f"{MOBILENET}.keras"), Path(folder, "labels.txt")
        network.save(file)
        labels.write_text("".join(f"label {number}\n" for number in range(LABELS)))
        added = mlaas(
            *("models", "add", MOBILENET, str(file), "--labels", str(labels)),
            *("--kind", "image", "--scale", "0..255", "--set", f"model.weights_dir={weights_dir}"),
        )
    if added.returncode:
        sys.exit(added.stderr)


def _photo(size: tuple[int, int], grain: float) -> "Image":
    import numpy as np
    from PIL import Image, ImageOps

    width, height = size
    shades = np.linspace(170, 230, height)[:, None, None] + np.zeros((1, width, 3))
    shades += np.random.default_rng(1).normal(0, grain, (height, width, 1))
    wall = Image.fromarray(shades.clip(0, 255).astype(np.uint8))
    edge = height * 11 // 15
    with Image.open(ROOT / "samples" / "coat.png") as sample:
        coat = sample.convert("L").resize((edge, edge), Image.Resampling.BICUBIC)
    garment = ImageOps.colorize(coat, "#203050", "#7088a8")
    wall.paste(garment, (width * 9 // 40, height * 2 // 15), coat.point(lambda v: 255 * (v > 30)))
    return wall


def _of_size(image: "Image", most: int) -> bytes:
    """A JPEG of the highest quality that does not exceed so many bytes."""
    found = b""
    for quality in range(20, 96):
        into = BytesIO()
        image.save(into, "JPEG", quality=quality)
        if into.tell() > most:
            break
        found = into.getvalue()
    return found


if __name__ == "__main__":
    add_mobilenet(Path(sys.argv[1]))
