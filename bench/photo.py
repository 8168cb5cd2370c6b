"""A 12-megapixel JPEG like those of a phone, made here: a sample on a wall with grain."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from bench.environments import CACHE
from tests.e2e.services import ROOT

SIZE = (4000, 3000)


def photo() -> Path:
    """Made if it is not there; the same bytes each time. Its size is that of a phone's: 3 to 6 MB."""
    path = CACHE / "photo-12-megapixels.jpg"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        _make().save(path, quality=90)
    return path


def _make() -> Image.Image:
    width, height = SIZE
    shades = np.linspace(170, 230, height)[:, None, None] + np.zeros((1, width, 3))
    shades += np.random.default_rng(1).normal(0, 7, (height, width, 1))
    wall = Image.fromarray(shades.clip(0, 255).astype(np.uint8))
    with Image.open(ROOT / "samples" / "coat.png") as sample:
        coat = sample.convert("L").resize((2200, 2200), Image.Resampling.BICUBIC)
    wall.paste(
        ImageOps.colorize(coat, "#203050", "#7088a8"), (900, 400), coat.point(lambda v: 255 * (v > 30))
    )
    return wall
