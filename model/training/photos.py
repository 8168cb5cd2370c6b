"""Measures a model on phone photos in a folder for each kind of clothing.

The kinds are those of clothing-dataset-small, a public data set (Alexey Grigorev and others, CC0 1.0).
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from model.classifier import Classifier, Scores, prepare_for
from model.decoding import open_upright
from model.garment import SIDE, Pictures
from model.manifest import Manifest
from model.preprocessing import PictureError, Prepared, prepare
from model.training.dataset import DatasetError
from model.training.evaluate import auroc, in_batches
from model.training.figures import Flagged, PhotoFigures, Right

Accepted = Mapping[str, frozenset[str]]

ACCEPTED: Accepted = {
    "t-shirt": frozenset({"T-shirt/top"}),
    "pants": frozenset({"Trouser"}),
    "dress": frozenset({"Dress"}),
    "outwear": frozenset({"Coat"}),
    "shirt": frozenset({"Shirt"}),
    "longsleeve": frozenset({"Pullover", "Shirt", "T-shirt/top"}),
    "shoes": frozenset({"Sandal", "Sneaker", "Ankle boot"}),
}
"""The labels of Fashion-MNIST that count as right for each kind."""

UNKNOWN = frozenset({"hat", "shorts", "skirt"})
"""Kinds that the training data does not contain, for which no label is right."""

KINDS = (*sorted(ACCEPTED), *sorted(UNKNOWN))

PICTURE_SUFFIXES = frozenset({".avif", ".heic", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
LAYOUT = "Put photos into a folder for each kind of clothing, such as t-shirt/1.jpg"


class Answers(NamedTuple):
    """Predictions for each photo. simpler: the labels after each simpler preparation, by name."""

    prepared: list[Prepared]
    labels: list[str]
    ood_scores: Scores
    simpler: dict[str, list[str]]


def measure(classifier: Classifier, folder: Path, max_pixels: int) -> PhotoFigures:
    """Measures a classifier on the photos in a folder. Raises DatasetError."""
    accepted = accepted_by(classifier.manifest)
    photos = read_folder(folder, KINDS if accepted is ACCEPTED else tuple(accepted))
    kinds = [path.parent.name for path in photos]
    if not accepted.keys() & set(kinds):
        raise DatasetError(f"{folder} has no photos of a kind that the model knows: {', '.join(accepted)}.")
    return figures(classifier, kinds, answer(classifier, photos, max_pixels))


def accepted_by(manifest: Manifest) -> Accepted:
    """The labels that count as right for each kind: its own, but for the models of Fashion-MNIST."""
    return ACCEPTED if manifest.takes_mode else {label: frozenset({label}) for label in manifest.labels}


def read_folder(folder: Path, known: Sequence[str] = KINDS) -> list[Path]:
    """The photos in the subfolders, which are named after known kinds, sorted. Raises DatasetError."""
    if not folder.is_dir():
        raise DatasetError(f"{folder} is not a folder. {LAYOUT}.")
    kinds = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not kinds or (strange := [kind for kind in kinds if kind.name not in known]):
        problem = f"{strange[0]} is not a known kind" if kinds else f"{folder} has no folders of photos"
        raise DatasetError(f"{problem}. {LAYOUT}; the kinds are {', '.join(known)}.")
    photos = {
        kind: sorted(p for p in kind.iterdir() if p.suffix.lower() in PICTURE_SUFFIXES) for kind in kinds
    }
    for kind, paths in photos.items():
        if not paths:
            raise DatasetError(f"{kind} has no {', '.join(sorted(PICTURE_SUFFIXES))} files.")
    return [path for paths in photos.values() for path in paths]


def answer(classifier: Classifier, photos: Sequence[Path], max_pixels: int) -> Answers:
    """Prepares each photo in every way and classifies it. Raises DatasetError."""
    prepared: list[Prepared] = []
    ways = SIMPLER_WAYS if classifier.manifest.takes_mode else {}
    simpler: dict[str, list[Pictures]] = {name: [] for name in ways}
    for photo in photos:
        content = photo.read_bytes()
        try:
            prepared.append(prepare_for(classifier.manifest, content, mode="auto", max_pixels=max_pixels))
            for name, pixels in simpler.items():
                pixels.append(ways[name](content, max_pixels))
        except PictureError as error:
            raise DatasetError(f"{photo}: {error}") from error

    def labels(rows: np.ndarray) -> list[str]:
        return [classifier.manifest.labels[index] for index in rows.argmax(axis=1)]

    probabilities, scores = in_batches(classifier.predict, np.stack([each.pixels for each in prepared]))
    others = {
        name: labels(in_batches(classifier.predict, np.stack(pixels))[0]) for name, pixels in simpler.items()
    }
    return Answers(prepared, labels(probabilities), scores, others)


def figures(classifier: Classifier, kinds: Sequence[str], found: Answers) -> PhotoFigures:
    """The figures of these answers to photos of these kinds, at least one of which the model knows."""
    manifest, accepted = classifier.manifest, accepted_by(classifier.manifest)
    per_kind = score(kinds, found.labels, accepted)
    right, total = (sum(getattr(its, name) for its in per_kind.values()) for name in ("right", "total"))
    simpler = {name: score(kinds, labels, accepted) for name, labels in found.simpler.items()}
    return PhotoFigures(
        model=manifest.name,
        version=manifest.version,
        keras_sha256=manifest.weights_sha256,
        accuracy=right / total,
        right=right,
        total=total,
        baseline={
            name: sum(its.right for its in its_kinds.values()) / total for name, its_kinds in simpler.items()
        },
        per_kind=per_kind,
        ood=unknown(np.array(kinds), found.ood_scores) if found.ood_scores.size else {},
        modes=dict(Counter(each.mode for each in found.prepared).most_common()),
        warnings=dict(Counter(text for each in found.prepared for text in each.warnings).most_common()),
    )


def score(kinds: Sequence[str], labels: Sequence[str], accepted: Accepted = ACCEPTED) -> dict[str, Right]:
    """How many labels are right for each kind that the model knows, from the label of each photo."""
    hits: dict[str, list[bool]] = {kind: [] for kind in kinds if kind in accepted}
    for kind, label in zip(kinds, labels, strict=True):
        if kind in accepted:
            hits[kind].append(label in accepted[kind])
    return {
        kind: Right(right=sum(its), total=len(its), accuracy=sum(its) / len(its))
        for kind, its in hits.items()
    }


def unknown(kinds: np.ndarray, scores: Scores) -> dict[str, Flagged | float]:
    """The value of PhotoFigures.ood, without auroc if the model knows all kinds."""
    known = np.isin(kinds, list(ACCEPTED))
    found: dict[str, Flagged | float] = {
        kind: Flagged(flagged=int((scores[kinds == kind] > 1).sum()), total=int((kinds == kind).sum()))
        for kind in dict.fromkeys(kinds[~known].tolist())
    }
    if found:
        found["auroc"] = auroc(scores[~known], scores[known])
    return found | {"known_flagged": float((scores[known] > 1).mean())}


def plain_inverted_resize(picture: bytes, max_pixels: int) -> Pictures:
    """Squeezes the whole photo into 28x28 and inverts it, as most tutorials do. Raises PictureError."""
    image = open_upright(picture, max_pixels=max_pixels, longest_edge=256).image.convert("L")
    return 255 - np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BOX))


def authors_steps(picture: bytes, max_pixels: int) -> Pictures:
    """Prepares a photo with the steps of the data set's authors. Raises PictureError."""
    return prepare(picture, mode="product", max_pixels=max_pixels).pixels


SIMPLER_WAYS: dict[str, Callable[[bytes, int], Pictures]] = {
    "plain inverted resize": plain_inverted_resize,
    "authors' steps": authors_steps,
}
"""Simpler preparations to compare with, from a file and max_pixels to uint8 (28, 28)."""
