"""How good a model is on photos: `mlaas evaluate --photos`."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from model.arrays import Pictures, Scores
from model.classifier import Classifier, Predictions, in_batches
from model.preprocessing import PictureError, Prepared, prepare
from model.training.figures import Flagged, PhotoFigures, Right
from model.training.ood_sets import auroc
from model.training.photo_set import ACCEPTED, SIMPLER_WAYS, Photo, PhotoSetError, read_photo_set, score


class Answers(NamedTuple):
    """What the service would say to each photo, and what simpler ways to prepare them would lead to."""

    prepared: list[Prepared]
    labels: list[str]
    ood_scores: Scores
    simpler: dict[str, list[str]]


def measure(classifier: Classifier, folder: Path, max_pixels: int) -> PhotoFigures:
    """The figures over the photos of a folder with one folder for each kind. Raises PhotoSetError."""
    photos = read_photo_set(folder)
    if not any(photo.kind in ACCEPTED for photo in photos):
        raise PhotoSetError(f"{folder} has no photos of a kind that the model knows: {', '.join(ACCEPTED)}.")
    return figures(classifier, [photo.kind for photo in photos], answer(classifier, photos, max_pixels))


def answer(classifier: Classifier, photos: Sequence[Photo], max_pixels: int) -> Answers:
    """Prepares every photo in each way and asks the classifier. Raises PhotoSetError."""
    prepared: list[Prepared] = []
    simpler: dict[str, list[Pictures]] = {name: [] for name in SIMPLER_WAYS}
    for photo in photos:
        content = photo.path.read_bytes()
        try:
            prepared.append(prepare(content, max_pixels=max_pixels))
            for name, pixels in simpler.items():
                pixels.append(SIMPLER_WAYS[name](content, max_pixels))
        except PictureError as error:
            raise PhotoSetError(f"{photo.path}: {error}") from error
    found = in_batches(classifier, np.stack([each.pixels for each in prepared]))
    others = {
        name: labels(classifier, in_batches(classifier, np.stack(pixels))) for name, pixels in simpler.items()
    }
    return Answers(prepared, labels(classifier, found), found.ood_scores, others)


def labels(classifier: Classifier, found: Predictions) -> list[str]:
    """The most probable label of each picture."""
    return [classifier.manifest.labels[index] for index in found.probabilities.argmax(axis=1)]


def figures(classifier: Classifier, kinds: Sequence[str], found: Answers) -> PhotoFigures:
    """The figures of these answers to photos of these kinds."""
    manifest = classifier.manifest
    right = score(kinds, found.labels).right_of
    total = sum(count for _, count in right.values())
    return PhotoFigures(
        model=manifest.name,
        version=manifest.version,
        keras_sha256=manifest.keras_sha256,
        accuracy=sum(hits for hits, _ in right.values()) / total,
        right=sum(hits for hits, _ in right.values()),
        total=total,
        baseline={name: score(kinds, said).accuracy for name, said in found.simpler.items()},
        per_kind={kind: Right(right=r, total=n, accuracy=r / n) for kind, (r, n) in right.items()},
        ood=strangers(np.array(kinds), found.ood_scores),
        modes=dict(Counter(each.mode for each in found.prepared).most_common()),
        warnings=dict(Counter(text for each in found.prepared for text in each.warnings).most_common()),
    )


def strangers(kinds: NDArray[np.str_], scores: Scores) -> dict[str, Flagged | float]:
    """PhotoFigures.ood; without auroc where all kinds are known."""
    known = np.isin(kinds, list(ACCEPTED))
    unknown = dict.fromkeys(kinds[~known].tolist())
    found: dict[str, Flagged | float] = {
        kind: Flagged(flagged=int((scores[kinds == kind] > 1).sum()), total=int((kinds == kind).sum()))
        for kind in unknown
    }
    if unknown:
        found["auroc"] = auroc(scores[~known], scores[known])
    return found | {"known_flagged": float((scores[known] > 1).mean())}
