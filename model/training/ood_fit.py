"""Fits the detector of out-of-distribution pictures: a logistic regression on the network's features.

It learns to separate training pictures from outliers generated here (outlier exposure, Hendrycks et al.,
arXiv 1812.04606). Of the sets in ood_sets that measure the result, these outliers resemble the turned clothes
and the noise, and their polylines resemble digits a little. It does not learn from textures, photos, hats,
shorts or skirts, although half a pair of trousers is much like shorts.
"""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

from model.ood import Detector, Weights
from model.product import Pictures
from model.runtimes import Features
from model.training.augmentation import SHOES, SIDE, photo_like, smooth_noise
from model.training.augmentation import fit as fitted
from model.training.dataset import Labels

SEED = 3001
TRAINING_PICTURES, OUTLIERS = 8000, 1500
"""The numbers of training pictures, each used as it is and as a photo, and of outliers of each kind."""
SHRINKAGE, RIDGE, STEPS = 0.01, 0.05, 12

Random = np.random.Generator


def fit(
    features: Callable[[Pictures], Features], pictures: Pictures, labels: Labels, held_out: Pictures
) -> Detector:
    """Fits the detector for a network with these features; 95% of the held-out pictures pass it."""
    random = np.random.default_rng(SEED)
    chosen = random.permutation(len(pictures))[:TRAINING_PICTURES]
    pictures, labels = pictures[chosen], labels[chosen]
    plain = features(pictures)
    detector = space(plain, labels)
    photos = features(photo_like(pictures, labels, random))
    clothing = detector.measures(np.concatenate((plain, photos)))
    others = detector.measures(features(outliers(pictures, labels, OUTLIERS, random)))
    return calibrated(detector, separate(clothing, others), detector.measures(features(held_out)))


def space(features: Features, labels: Labels) -> Detector:
    """A detector that measures distances, with weights of 0."""
    exact, classes = features.astype(np.float64), np.unique(labels)
    means = np.stack([exact[labels == label].mean(axis=0) for label in classes])
    rest = exact - means[np.searchsorted(classes, labels)]
    variances, axes = np.linalg.eigh(rest.T @ rest / len(rest))
    whiten = axes / np.sqrt(variances + SHRINKAGE * variances.mean() + 1e-9)
    mean, weights = exact.mean(axis=0), np.zeros(exact.shape[1] + len(classes) + 2)
    arrays = mean, whiten, (means - mean) @ whiten, weights, 0
    return Detector(*(np.asarray(array, np.float32) for array in arrays))


def separate(clothing: Weights, others: Weights) -> Weights:
    """The weights (m,) of a logistic regression, fitted by Newton's method with balanced classes."""
    measures = np.concatenate((clothing, others)).astype(np.float64)
    centre, spread = measures.mean(axis=0), measures.std(axis=0) + 1e-6
    x = np.column_stack(((measures - centre) / spread, np.ones(len(measures))))
    truth = np.arange(len(x)) >= len(clothing)
    share = np.where(truth, 0.5 / len(others), 0.5 / len(clothing))
    weights = np.zeros(x.shape[1])
    for _ in range(STEPS):
        chance = 1 / (1 + np.exp(-np.clip(x @ weights, -30, 30)))
        slope = x.T @ (share * (chance - truth)) + RIDGE * weights
        curvature = (x.T * (share * chance * (1 - chance))) @ x + RIDGE * np.eye(len(weights))
        weights -= np.linalg.solve(curvature, slope)
    return np.asarray(weights[:-1] / spread, np.float32)


def calibrated(detector: Detector, weights: Weights, held_out: Weights) -> Detector:
    """Scales the weights so that half of the held-out pictures score 0 and 95% score at most 1."""
    middle, limit = np.quantile(held_out @ weights, (0.5, 0.95))
    scale = max(limit - middle, 1e-6)
    return detector._replace(
        weights=weights / np.float32(scale), bias=np.asarray(-middle / scale, np.float32)
    )


def outliers(pictures: Pictures, labels: Labels, each: int, random: Random) -> Pictures:
    """Pictures of something other than clothing, this many of each of five kinds.

    The kinds are pieces of garments, halves of two combined, and drawn shapes, every second of these as in
    photos; turned clothes; and noise.
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
    """A third to two thirds of a garment, enlarged to the size of a whole one."""
    height = int(random.integers(9, 19))
    top = random.choice((0, (SIDE - height) // 2, SIDE - height))
    cut = picture[:, top : top + height] if random.random() < 0.35 else picture[top : top + height]
    return np.asarray(fitted(Image.fromarray(np.ascontiguousarray(cut)), random))


def shape(random: Random) -> Pictures:
    """One to three ellipses, polygons or polylines, each in one grey."""
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
    """Smooth noise of any scale with grain, in all greys or in two."""
    hills = smooth_noise(int(random.integers(2, SIDE)), random) * random.uniform(10, 120)
    values = 128 + hills + random.normal(0, random.uniform(0, 50), (SIDE, SIDE))
    if random.random() < 0.3:
        values = np.where(values > random.uniform(80, 180), random.uniform(150, 255), 0)
    return np.clip(values, 0, 255).astype(np.uint8)
