"""Corruptions, to measure how robust a classifier is: uint8 (n, 28, 28) in and out, always the same noise.

The fifteen kinds are those of Fashion-MNIST-C (Weiss and Tonella, ISSTA 2022), implemented anew for grey
pictures, at the first, third and fifth of its five strengths. Accuracies cannot be compared with those
published for that set, which differs: it draws one kind and one level for each picture; its glass blur swaps
pixels where this one copies them; its shear also shrinks the height; its saturation adds a tint; and it
truncates values where this one rounds.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from model.product import Pictures

SEED = 2022
SIDE = 28
CENTRE = (SIDE - 1) / 2

Random = np.random.Generator
Floats = NDArray[np.float64]
Corruption = Callable[[Floats, Random], Floats]
"""Values from 0 to 1, (n, 28, 28), in and out; the result may exceed that range."""


def corrupt(pictures: Pictures, name: str, level: int) -> Pictures:
    """The pictures under one of CORRUPTIONS; level is the index of its strength."""
    changed = CORRUPTIONS[name][level](pictures / 255, np.random.default_rng(SEED))
    return (np.clip(changed, 0, 1) * 255).round().astype(np.uint8)


def shot_noise(photons: float, x: Floats, random: Random) -> Floats:
    """What a sensor sees that counts this many photons in a white pixel."""
    return random.poisson(x * photons) / photons


def impulse_noise(share: float, x: Floats, random: Random) -> Floats:
    """This share of the pixels becomes white or black."""
    hit, white = random.random(x.shape) < share, random.random(x.shape) < 0.5
    return np.where(hit, white, x)


def glass_blur(sigma: float, distance: int, rounds: int, x: Floats, random: Random) -> Floats:
    """Blurred; in each round every pixel replaced by one up to this distance away; blurred again."""
    x = blur(x, sigma)
    for _ in range(rounds):
        rows, columns = random.integers(-distance, distance + 1, (2, *x.shape))
        x = pick(x, np.arange(SIDE)[:, None] + rows, np.arange(SIDE) + columns)
    return blur(x, sigma)


def motion_blur(radius: int, sigma: float, x: Floats, random: Random) -> Floats:
    """Each picture smeared in a direction of its own, at most 45 degrees from the horizontal."""
    angle = random.uniform(-np.pi / 4, np.pi / 4, (len(x), 1, 1))
    steps = np.arange(2 * radius + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    smeared = np.zeros_like(x)
    for step, weight in zip(steps, weights / weights.sum(), strict=True):
        rows = np.arange(SIDE)[:, None] + np.round(step * np.sin(angle)).astype(int)
        columns = np.arange(SIDE) + np.round(step * np.cos(angle)).astype(int)
        smeared += weight * pick(x, rows, columns)
    return smeared


def shear(factor: float, x: Floats, random: Random) -> Floats:
    """Rows shifted by this fraction of their distance from the middle, to a random side."""
    either = factor * random.choice((-1, 1), len(x))
    one, none = np.ones(len(x)), np.zeros(len(x))
    return warp(x, np.array(((one, none), (either, one))))


def scale(size: float, x: Floats, random: Random) -> Floats:
    """Shrunk to this fraction of its size, with black around it."""
    return warp(x, np.eye(2)[:, :, None] / size)


def rotate(radians: float, x: Floats, random: Random) -> Floats:
    """Rotated to a random side."""
    angle = radians * random.choice((-1, 1), len(x))
    sine, cosine = np.sin(angle), np.cos(angle)
    return warp(x, np.array(((cosine, -sine), (sine, cosine))))


def contrast(kept: float, x: Floats, random: Random) -> Floats:
    """This fraction of every pixel's difference from the picture's mean."""
    mean = x.mean(axis=(1, 2), keepdims=True)
    flat: Floats = (x - mean) * kept + mean
    return flat


def saturate(gain: float, added: float, x: Floats, random: Random) -> Floats:
    """Multiplied and brightened, background included: what a change of saturation does to grey."""
    return x * gain + added


def blur(x: Floats, sigma: float) -> Floats:
    """Convolved with a Gaussian of this standard deviation in pixels; the outermost pixels are repeated."""
    reach = round(4 * sigma)
    weights = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * sigma**2))
    weights /= weights.sum()
    for axis in (1, 2):
        x = np.pad(x, [(reach, reach) if axis == padded else (0, 0) for padded in range(3)], mode="edge")
        x = np.lib.stride_tricks.sliding_window_view(x, len(weights), axis=axis) @ weights
    return x


def pick(x: Floats, rows: NDArray[np.int_], columns: NDArray[np.int_]) -> Floats:
    """The pixels at these places, which broadcast to (n, 28, 28); the nearest one for a place outside."""
    rows, columns = (np.clip(places, 0, SIDE - 1) for places in (rows, columns))
    return x[np.arange(len(x))[:, None, None], rows, columns]


def warp(x: Floats, matrices: Floats) -> Floats:
    """Each pixel from where its picture's matrix maps its row and column, both relative to the centre.

    matrices: (2, 2, n), or (2, 2, 1) for one that all pictures share. Places between pixels are interpolated;
    places outside are black.
    """
    offsets = np.indices((SIDE, SIDE)) - CENTRE
    places = np.einsum("abn,bij->anij", matrices, offsets) + CENTRE + 1
    places = np.broadcast_to(np.clip(places, 0, SIDE + 1), (2, *x.shape))
    low = np.minimum(places.astype(int), SIDE)
    (row, column), (down, right) = low, places - low
    framed, n = np.pad(x, ((0, 0), (1, 1), (1, 1))), np.arange(len(x))[:, None, None]
    upper = framed[n, row, column] * (1 - right) + framed[n, row, column + 1] * right
    lower = framed[n, row + 1, column] * (1 - right) + framed[n, row + 1, column + 1] * right
    between: Floats = upper * (1 - down) + lower * down
    return between


CORRUPTIONS: dict[str, tuple[Corruption, ...]] = {
    "shot noise": tuple(partial(shot_noise, photons) for photons in (60, 12, 3)),
    "impulse noise": tuple(partial(impulse_noise, share) for share in (0.03, 0.09, 0.27)),
    "glass blur": tuple(partial(glass_blur, *how) for how in ((0.7, 1, 2), (1, 2, 3), (1.5, 4, 2))),
    "motion blur": tuple(partial(motion_blur, *how) for how in ((10, 3), (15, 8), (20, 15))),
    "shear": tuple(partial(shear, factor) for factor in (0.2, 0.6, 1.0)),
    "scale": tuple(partial(scale, size) for size in (0.9, 0.7, 0.5)),
    "rotate": tuple(partial(rotate, radians) for radians in (0.2, 0.6, 1.0)),
    "brightness": tuple(partial(saturate, 1, added) for added in (0.1, 0.3, 0.5)),
    "contrast": tuple(partial(contrast, kept) for kept in (0.4, 0.2, 0.05)),
    "saturate": tuple(partial(saturate, *how) for how in ((0.3, 0), (2, 0), (20, 0.2))),
    "inverse": (lambda x, random: 1 - x,),
    "mirror": (lambda x, random: x[:, :, ::-1],),
    "upside down": (lambda x, random: x[:, ::-1],),
    "turn left": (lambda x, random: np.rot90(x, 1, (1, 2)),),
    "turn right": (lambda x, random: np.rot90(x, -1, (1, 2)),),
}
"""Each kind at its strengths, from mild to severe."""
