"""Pictures of what is not clothing, made to be told from it: uint8 (n, 28, 28).

Of the sets in model.training.ood_sets they resemble the turned clothes and the noise, and their broken lines
are a little like digits. Nothing was learned from textures, photos, hats, shorts or skirts, though half a
pair of trousers is much like shorts.
"""

import numpy as np
from PIL import Image, ImageDraw

from model.arrays import Labels, Pictures
from model.training.photo_like import SHOES, SIDE, photo_like, smooth_noise
from model.training.photo_like import fit as fitted

Random = np.random.Generator


def strangers(pictures: Pictures, labels: Labels, each: int, random: Random) -> Pictures:
    """So many of each of five kinds.

    Pieces, halves of two put together, and drawn shapes, every other as in photos; turned clothes; noise.
    """
    one, other = random.integers(0, len(pictures), (2, each))
    pieces = [piece(pictures[i], random) for i in one]
    halves = [np.vstack((pictures[i][:14], pictures[j][14:])) for i, j in zip(one, other, strict=True)]
    shapes = [shape(random) for _ in range(each)]
    made = np.stack([*pieces, *halves, *shapes])
    kinds = np.concatenate((labels[one], labels[one], np.full(each, 3, labels.dtype)))
    made[::2] = photo_like(made[::2], kinds[::2], random)
    garments = pictures[~np.isin(labels, SHOES)][:each]
    turned = [np.rot90(garment, int(random.integers(1, 4))) for garment in garments]
    return np.stack([*made, *turned, *(noise(random) for _ in range(each))])


def piece(picture: Pictures, random: Random) -> Pictures:
    """A third to two thirds of a garment, made as large as a whole one."""
    height = int(random.integers(9, 19))
    top = random.choice((0, (SIDE - height) // 2, SIDE - height))
    cut = picture[:, top : top + height] if random.random() < 0.35 else picture[top : top + height]
    return np.asarray(fitted(Image.fromarray(np.ascontiguousarray(cut)), random))


def shape(random: Random) -> Pictures:
    """One to three ellipses, polygons or broken lines, each of one grey."""
    canvas = Image.new("L", (3 * SIDE, 3 * SIDE))
    draw = ImageDraw.Draw(canvas)
    for _ in range(random.integers(1, 4)):
        points = [tuple(point) for point in random.uniform(8, 3 * SIDE - 8, (random.integers(3, 7), 2))]
        grey, kind = int(random.integers(60, 256)), random.integers(3)
        if kind == 0:
            draw.ellipse((*np.minimum(*points[:2]), *np.maximum(*points[:2])), fill=grey)
        elif kind == 1:
            draw.polygon(points, fill=grey)
        else:
            draw.line(points, fill=grey, width=int(random.integers(4, 13)), joint="curve")
    return np.asarray(fitted(canvas, random))


def noise(random: Random) -> Pictures:
    """Hills of any width and grain over the whole picture, in all greys or in two."""
    hills = smooth_noise(int(random.integers(2, SIDE)), random) * random.uniform(10, 120)
    values = 128 + hills + random.normal(0, random.uniform(0, 50), (SIDE, SIDE))
    if random.random() < 0.3:
        values = np.where(values > random.uniform(80, 180), random.uniform(150, 255), 0)
    return np.clip(values, 0, 255).astype(np.uint8)
