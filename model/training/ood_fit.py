"""Fitting the detector: a logistic regression learns to tell training pictures from strangers.

That is outlier exposure (Hendrycks et al., arXiv 1812.04606), after training and on features. The strangers
are all made in model.training.strangers.
"""

from collections.abc import Callable

import numpy as np

from model.arrays import Features, Labels, Pictures
from model.ood import Detector, Weights
from model.training.photo_like import photo_like
from model.training.strangers import strangers

SEED = 3001
PICTURES, PHOTOS, STRANGERS = 8000, 8000, 1500
"""Training pictures that are learned, those of them also as photos, and strangers of each of five kinds."""
SHRINKAGE, RIDGE, STEPS = 0.01, 0.05, 12


def fit(
    features: Callable[[Pictures], Features], pictures: Pictures, labels: Labels, held_out: Pictures
) -> Detector:
    """The detector for the network that gives these features.

    It learns what training pictures are like, and lets 95 % of those held out pass.
    """
    random = np.random.default_rng(SEED)
    chosen = random.permutation(len(pictures))[:PICTURES]
    pictures, labels = pictures[chosen], labels[chosen]
    known = features(pictures)
    detector = space(known, labels)
    photos = features(photo_like(pictures[:PHOTOS], labels[:PHOTOS], random))
    clothing = detector.measures(np.concatenate((known, photos)))
    strange = detector.measures(features(strangers(pictures, labels, STRANGERS, random)))
    return calibrated(detector, separate(clothing, strange), detector.measures(features(held_out)))


def space(features: Features, labels: Labels) -> Detector:
    """A detector that can measure, and does not score yet."""
    exact, classes = features.astype(np.float64), np.unique(labels)
    means = np.stack([exact[labels == label].mean(axis=0) for label in classes])
    rest = exact - means[np.searchsorted(classes, labels)]
    variances, axes = np.linalg.eigh(rest.T @ rest / len(rest))
    whiten = axes / np.sqrt(variances + SHRINKAGE * variances.mean() + 1e-9)
    mean, weights = exact.mean(axis=0), np.zeros(exact.shape[1] + len(classes) + 2)
    arrays = mean, whiten, (means - mean) @ whiten, weights, 0
    return Detector(*(np.asarray(array, np.float32) for array in arrays))


def separate(clothing: Weights, strange: Weights) -> Weights:
    """The weights of a logistic regression by Newton's method, both sides counting the same: (m,)."""
    measures = np.concatenate((clothing, strange)).astype(np.float64)
    centre, spread = measures.mean(axis=0), measures.std(axis=0) + 1e-6
    x = np.column_stack(((measures - centre) / spread, np.ones(len(measures))))
    truth = np.arange(len(x)) >= len(clothing)
    share = np.where(truth, 0.5 / len(strange), 0.5 / len(clothing))
    weights = np.zeros(x.shape[1])
    for _ in range(STEPS):
        chance = 1 / (1 + np.exp(-np.clip(x @ weights, -30, 30)))
        slope = x.T @ (share * (chance - truth)) + RIDGE * weights
        curvature = (x.T * (share * chance * (1 - chance))) @ x + RIDGE * np.eye(len(weights))
        weights -= np.linalg.solve(curvature, slope)
    return np.asarray(weights[:-1] / spread, np.float32)


def calibrated(detector: Detector, weights: Weights, held_out: Weights) -> Detector:
    """Scaled so that half of the pictures held out score 0 at most, and 95 % of them 1 at most."""
    middle, limit = np.quantile(held_out @ weights, (0.5, 0.95))
    scale = max(limit - middle, 1e-6)
    return detector._replace(
        weights=weights / np.float32(scale), bias=np.asarray(-middle / scale, np.float32)
    )
