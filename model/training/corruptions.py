"""Corrupts pictures, uint8 (n, 28, 28), to measure the robustness of a classifier. The noise is fixed.

The fifteen kinds are those of Fashion-MNIST-C (Weiss and Tonella, ISSTA 2022), reimplemented for grey
pictures at the first, third and fifth of its five levels. Do not compare accuracies with those published for
that set, which differs: it draws one kind and level for each picture; its glass blur swaps pixels where this
one copies them; its shear also shrinks the height; its saturation adds a tint; and it truncates values where
this one rounds.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from model.garment import Pictures

SEED = 2022
SIDE = 28
CENTRE = (SIDE - 1) / 2

Random = np.random.Generator
Floats = NDArray[np.float64]
Corruption = Callable[[Floats, Random], Floats]
"""Maps values from 0 to 1, (n, 28, 28); the result may exceed that range."""


def corrupt(pictures: Pictures, name: str, level: int) -> Pictures:
    """Applies one of CORRUPTIONS at a level, which is an index into its levels."""
    changed = CORRUPTIONS[name][level](pictures / 255, np.random.default_rng(SEED))
    return (np.clip(changed, 0, 1) * 255).round().astype(np.uint8)


def shot_noise(photons: float, x: Floats, random: Random) -> Floats:
    """What a sensor sees if white is this many photons."""
    return random.poisson(x * photons) / photons


def impulse_noise(share: float, x: Floats, random: Random) -> Floats:
    """Makes this share of the pixels white or black."""
    hit, white = random.random(x.shape) < share, random.random(x.shape) < 0.5
    return np.where(hit, white, x)


def glass_blur(sigma: float, distance: int, rounds: int, x: Floats, random: Random) -> Floats:
    """Blurs; in each round replaces every pixel by one up to this distance away; blurs again."""
    x = blur(x, sigma)
    for _ in range(rounds):
        rows, columns = random.integers(-distance, distance + 1, (2, *x.shape))
        x = pick(x, np.arange(SIDE)[:, None] + rows, np.arange(SIDE) + columns)
    return blur(x, sigma)


def motion_blur(radius: int, sigma: float, x: Floats, random: Random) -> Floats:
    """Smears each picture in its own direction, at most 45 degrees from the horizontal."""
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
    """Shifts rows by this fraction of their distance from the middle, to a random side."""
    either = factor * random.choice((-1, 1), len(x))
    one, none = np.ones(len(x)), np.zeros(len(x))
    return warp(x, np.array(((one, none), (either, one))))


def scale(size: float, x: Floats, random: Random) -> Floats:
    """Shrinks pictures to this fraction of their size, on black."""
    return warp(x, np.eye(2)[:, :, None] / size)


def rotate(radians: float, x: Floats, random: Random) -> Floats:
    """Rotates pictures to a random side."""
    angle = radians * random.choice((-1, 1), len(x))
    sine, cosine = np.sin(angle), np.cos(angle)
    return warp(x, np.array(((cosine, -sine), (sine, cosine))))


def contrast(kept: float, x: Floats, random: Random) -> Floats:
    """Reduces the difference of each pixel from the picture's mean to this fraction."""
    mean = x.mean(axis=(1, 2), keepdims=True)
    flat: Floats = (x - mean) * kept + mean
    return flat


def saturate(gain: float, added: float, x: Floats, random: Random) -> Floats:
    """Multiplies and brightens, including the background, as a change of saturation does to grey."""
    return x * gain + added


def blur(x: Floats, sigma: float) -> Floats:
    """Convolves with a Gaussian whose standard deviation is sigma pixels; repeats the outermost pixels."""
    reach = round(4 * sigma)
    weights = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * sigma**2))
    weights /= weights.sum()
    for axis in (1, 2):
        x = np.pad(x, [(reach, reach) if axis == padded else (0, 0) for padded in range(3)], mode="edge")
        x = np.lib.stride_tricks.sliding_window_view(x, len(weights), axis=axis) @ weights
    return x


def pick(x: Floats, rows: NDArray[np.int_], columns: NDArray[np.int_]) -> Floats:
    """The pixels at these places, which broadcast to (n, 28, 28); outside, the nearest pixels."""
    rows, columns = (np.clip(places, 0, SIDE - 1) for places in (rows, columns))
    return x[np.arange(len(x))[:, None, None], rows, columns]


def warp(x: Floats, matrices: Floats) -> Floats:
    """Takes each pixel from where its picture's matrix maps its row and column, relative to the centre.

    matrices: (2, 2, n), or (2, 2, 1) to share one. Interpolates between pixels; outside is black.
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
"""Each kind at its levels, from mild to severe."""
