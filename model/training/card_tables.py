"""The tables of a model card, in Markdown. Pure: every figure comes from the arguments."""

from collections.abc import Iterable, Mapping, Sequence

import msgspec
import numpy as np

from model.manifest import Manifest
from model.settings import TrainSettings
from model.training.figures import Evaluation, Flagged, PhotoFigures, Robustness, Seed
from model.training.ood_sets import OodFigures

NOT_RECIPE = ("name", "version", "data_dir", "checkpoint_dir", "reports_dir", "network")
CONFUSED_PAIRS = 6


def percent(fraction: float) -> str:
    return f"{fraction:.2%}".replace("%", " %")


def standard_error(fraction: float, count: int) -> float:
    """Of a share of so many independent pictures."""
    return float((fraction * (1 - fraction) / count) ** 0.5)


def with_error(fraction: float, count: int) -> str:
    return f"{fraction * 100:.2f} ± {standard_error(fraction, count) * 100:.2f} %"


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """The first column is text, the others are numbers."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def digests(manifest: Manifest) -> str:
    rows = ((name, f"`{digest}`") for name, digest in manifest.data_sha256.items())
    return table(["file, unpacked", "SHA-256"], rows)


def recipe(settings: TrainSettings) -> str:
    """Every setting that decides the weights, as configs/ has them."""
    tree = msgspec.to_builtins(settings)
    return table(["setting", "value"], flat({k: v for k, v in tree.items() if k not in NOT_RECIPE}))


def flat(tree: Mapping[str, object], prefix: str = "") -> Iterable[tuple[str, object]]:
    """Nested settings by their dotted names."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", "none" if value == "" else value


def per_class(found: Evaluation, labels: Sequence[str]) -> str:
    """Accuracy of each class with its standard error, and what it is most often mistaken for."""

    def row(index: int, label: str) -> Sequence[str]:
        answers = np.array(found.confusion[index])
        count, answers[index] = int(answers.sum()), 0
        wrong = f"{labels[int(answers.argmax())]} ({answers.max()})" if answers.any() else "nothing"
        return label, with_error(found.per_class[label], count), wrong

    rows = (row(index, label) for index, label in enumerate(labels) if label in found.per_class)
    return table(["label", "accuracy", "most often mistaken for"], rows)


def confused(found: Evaluation, labels: Sequence[str]) -> str:
    """The pairs of labels that are taken for each other most often."""
    counts = np.array(found.confusion)
    both = np.triu(counts + counts.T, 1)
    first, second = np.unravel_index(np.argsort(-both, axis=None, kind="stable")[:CONFUSED_PAIRS], both.shape)
    rows = (
        (f"{labels[i]}, {labels[j]}", both[i, j]) for i, j in zip(first, second, strict=True) if both[i, j]
    )
    return table(["labels", "pictures"], rows)


def calibration(found: Evaluation) -> str:
    before, after = found.before_temperature, found
    rows = (
        ("expected calibration error", percent(before.ece), percent(after.ece)),
        ("the same of each class, mean", percent(before.classwise_ece), percent(after.classwise_ece)),
        ("negative log likelihood (nats)", f"{before.nll:.4f}", f"{after.nll:.4f}"),
        ("Brier score", f"{before.brier:.4f}", f"{after.brier:.4f}"),
    )
    return table(["", "before", "after"], rows)


def robustness(found: Robustness) -> str:
    def row(name: str, levels: Sequence[float]) -> Sequence[str]:
        return name, *([percent(level) for level in levels] + ["", ""])[:3]

    rows = [row(name, levels) for name, levels in found.corruptions.items()]
    return table(["corruption", "mild", "middle", "severe"], rows)


def strangers(found: Mapping[str, OodFigures]) -> str:
    rows = (
        (name, its.count, f"{its.auroc:.3f}", percent(its.false_positive_rate)) for name, its in found.items()
    )
    return table(["strangers", "pictures", "AUROC", "not noticed"], rows)


def photos(found: PhotoFigures) -> str:
    rows = [
        (kind, f"{its.right} of {its.total}", percent(its.accuracy)) for kind, its in found.per_kind.items()
    ]
    rows += [("all", f"{found.right} of {found.total}", percent(found.accuracy))]
    rows += [(f"all, prepared by {name}", "", percent(share)) for name, share in found.baseline.items()]
    return table(["photos of", "right", "accuracy"], rows)


def unknown_photos(found: PhotoFigures) -> str:
    kinds = ((kind, its) for kind, its in found.ood.items() if isinstance(its, Flagged))
    return table(["photos of", "noticed"], ((kind, f"{its.flagged} of {its.total}") for kind, its in kinds))


def seeds(found: Sequence[Seed]) -> str:
    """Each training, and the mean and the standard deviation of the sample."""

    def spread(values: Sequence[float]) -> str:
        return f"{np.mean(values) * 100:.2f} ± {np.std(values, ddof=1) * 100:.2f} %"

    rows: list[Sequence[object]] = [
        (its.seed, percent(its.accuracy), percent(its.held_out_accuracy)) for its in found
    ]
    if len(found) > 1:
        tests, held_out = [its.accuracy for its in found], [its.held_out_accuracy for its in found]
        rows.append(("mean ± standard deviation", spread(tests), spread(held_out)))
    return table(["seed", "test accuracy", "held-out accuracy"], rows)
