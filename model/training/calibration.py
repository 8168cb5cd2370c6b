"""Probabilities that can be believed: temperature scaling (Guo et al., arXiv 1706.04599)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.arrays import Labels, Probabilities

Losses = NDArray[np.float32]

COLDEST, HOTTEST = 0.2, 5.0


def fit_temperature(logits: NDArray[np.float32], labels: Labels) -> float:
    """What to divide the logits (n, classes) by, so that the labels are most likely.

    The likelihood has one maximum in the temperature, so a golden section search finds it.
    """
    low, high = np.log(COLDEST), np.log(HOTTEST)
    golden = (5**0.5 - 1) / 2
    while high - low > 1e-4:
        left, right = high - golden * (high - low), low + golden * (high - low)
        if nll(logits / np.exp(left), labels) < nll(logits / np.exp(right), labels):
            high = right
        else:
            low = left
    return round(float(np.exp((low + high) / 2)), 4)


def nll(logits: NDArray[np.float32], labels: Labels) -> float:
    """The mean negative log likelihood of the labels, in nats."""
    return float(losses(logits, labels).mean())


def losses(logits: NDArray[np.float32], labels: Labels) -> Losses:
    """The negative log likelihood of each picture's label, in nats: (n,)."""
    top = logits.max(axis=1, keepdims=True)
    total = np.log(np.exp(logits - top).sum(axis=1)) + top[:, 0]
    found: Losses = total - logits[np.arange(len(logits)), labels]
    return found


def with_temperature(probabilities: Probabilities, temperature: float) -> Probabilities:
    """The probabilities that the same logits would give at this temperature; 1 changes nothing."""
    return softmax(np.log(np.maximum(probabilities, 1e-30)) / temperature).astype(np.float32)


def softmax(logits: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """Over the last axis, in the precision of the logits."""
    raised = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=-1, keepdims=True))
