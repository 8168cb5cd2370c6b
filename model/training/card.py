"""Writes docs/model-card-<model>.md from the template card.md and the figures in reports/<model>/."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from string import Formatter
from typing import Any

import msgspec
import numpy as np

from model.manifest import Manifest, ModelError, replace
from model.training.figures import Evaluation, Flagged, PhotoFigures, Record, Seed, read

TEMPLATE = Path(__file__).with_name("card.md")
NOT_SETTINGS = ("name", "version", "served", "data_dir", "checkpoint_dir", "reports_dir", "network")
CONFUSED_PAIRS = 6

Rows = Iterable[Sequence[object]]


def write(manifest: Manifest, record: Record, reports_dir: Path, docs_dir: Path) -> Path:
    """Writes the card and returns its path. Raises ModelError if there is no report on these weights."""
    path = docs_dir / f"model-card-{manifest.name}.md"
    docs_dir.mkdir(parents=True, exist_ok=True)
    replace(path, render(manifest, record, reports_dir, docs_dir).encode())
    return path


def render(manifest: Manifest, record: Record, reports_dir: Path, docs_dir: Path) -> str:
    """The text of the card, with links relative to docs_dir. Raises ModelError.

    It omits sections of the template with a value that is None, and plots whose files do not exist.
    """
    folder = reports_dir / manifest.name
    values = figures(manifest, record, folder) | {
        "folder": Path(os.path.relpath(folder, docs_dir)).as_posix()
    }

    def complete(section: str) -> bool:
        names = (re.split(r"\W", name)[0] for _, name, _, _ in Formatter().parse(section) if name)
        return all(values[name] is not None for name in names)

    sections = re.split(r"^(?=##)", TEMPLATE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    text = "".join(filter(complete, sections)).format_map(values)
    plots = re.compile(r"!\[.*/(.*)\)")
    paragraphs = text.strip().split("\n\n")
    shown = (each for each in paragraphs if not (plot := plots.match(each)) or (folder / plot[1]).exists())
    return "\n\n".join(shown) + "\n"


def figures(manifest: Manifest, record: Record, folder: Path) -> dict[str, Any]:
    """The values for the template by name. Raises ModelError.

    It ignores figures on photos that were measured with other weights.
    """
    metrics = read(folder / "metrics.json", Evaluation)
    if metrics is None or metrics.keras_sha256 != manifest.weights_sha256:
        raise ModelError(
            f"{folder} has no figures for these weights. Run: mlaas evaluate --model {manifest.name} --report"
        )
    photos = read(folder / "photos.json", PhotoFigures)
    if photos is not None and photos.keras_sha256 != manifest.weights_sha256:
        photos = None
    seeds = read(folder / "seeds.json", tuple[Seed, ...])
    settings, labels, robustness = record.settings, manifest.labels, metrics.robustness
    tree = {name: value for name, value in msgspec.to_builtins(settings).items() if name not in NOT_SETTINGS}
    return {
        "manifest": manifest,
        "record": record,
        "settings": settings,
        "metrics": metrics,
        "robustness": robustness,
        "photos": photos,
        "classes": len(labels),
        "labels": ", ".join(labels),
        "digest_rows": rows((name, f"`{digest}`") for name, digest in record.data_sha256.items()),
        "channels": ", ".join(map(str, settings.network.widths)),
        "mirrored": "yes" if settings.network.mirrored else "no",
        "shape": " x ".join(map(str, manifest.input.shape)),
        "minutes": record.wall_seconds / 60,
        "software": ", ".join(f"{name} {version}" for name, version in record.software.items()),
        "best_epochs": " and ".join(map(str, record.best_epochs)),
        "setting_rows": rows(by_dotted_name(tree)),
        "standard_error": standard_error(metrics.accuracy, metrics.count),
        "class_rows": rows(of_classes(metrics, labels)),
        "confused_rows": rows(most_confused(metrics, labels)),
        "corruption_rows": robustness
        and rows(
            (name, *[*(f"{level:.2%}" for level in levels), "", ""][:3])
            for name, levels in robustness.corruptions.items()
        ),
        "ood_rows": metrics.ood
        and rows(
            (name, its.count, f"{its.auroc:.3f}", f"{its.false_positive_rate:.2%}")
            for name, its in metrics.ood.items()
        ),
        "modes": photos and ", ".join(f"{mode} {count}" for mode, count in photos.modes.items()),
        "photo_rows": rows(of_photos(photos)) if photos else None,
        "unknown_auroc": photos and photos.ood.get("auroc"),
        "known_flagged": photos and photos.ood.get("known_flagged"),
        "unknown_rows": photos
        and rows(
            (kind, f"{its.flagged} of {its.total}")
            for kind, its in photos.ood.items()
            if isinstance(its, Flagged)
        ),
        "seed_rows": rows(of_seeds(seeds)) if seeds else None,
        "config": "" if manifest.name == "fashion-mnist" else f"--config configs/{manifest.name}.yaml ",
    }


def rows(cells: Rows) -> str:
    """Formats cells as the rows of a Markdown table."""
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in cells)


def by_dotted_name(tree: Mapping[str, object], prefix: str = "") -> Rows:
    """Each nested setting with its dotted name."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from by_dotted_name(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", "none" if value == "" else value


def standard_error(share: float, count: int) -> float:
    """The standard error of a fraction measured on count independent pictures."""
    return float((share * (1 - share) / count) ** 0.5)


def of_classes(found: Evaluation, labels: Sequence[str]) -> Rows:
    """For each class, its accuracy and what it is most often mistaken for."""
    for index, label in enumerate(labels):
        if label in found.per_class:
            answers, accuracy = np.array(found.confusion[index]), found.per_class[label]
            count, answers[index] = int(answers.sum()), 0
            wrong = f"{labels[int(answers.argmax())]} ({answers.max()})" if answers.any() else "nothing"
            yield label, f"{accuracy:.2%} ± {standard_error(accuracy, count):.2%}", wrong


def most_confused(found: Evaluation, labels: Sequence[str]) -> Rows:
    """The pairs of labels that are confused most often."""
    counts = np.array(found.confusion)
    both = np.triu(counts + counts.T, 1)
    for place in islice(np.argsort(-both, axis=None, kind="stable"), CONFUSED_PAIRS):
        one, other = np.unravel_index(place, both.shape)
        if both[one, other]:
            yield f"{labels[one]}, {labels[other]}", both[one, other]


def of_photos(found: PhotoFigures) -> Rows:
    """The accuracy on each kind, on all photos, and on all photos with simpler preparation."""
    for kind, its in found.per_kind.items():
        yield kind, f"{its.right} of {its.total}", f"{its.accuracy:.2%}"
    yield "all", f"{found.right} of {found.total}", f"{found.accuracy:.2%}"
    for name, share in found.baseline.items():
        yield f"all, prepared by {name}", "", f"{share:.2%}"


def of_seeds(found: Sequence[Seed]) -> Rows:
    """The accuracies for each seed, their mean, and the sample standard deviation."""
    for its in found:
        yield its.seed, f"{its.accuracy:.2%}", f"{its.held_out_accuracy:.2%}"
    if len(found) > 1:
        columns = [[its.accuracy for its in found], [its.held_out_accuracy for its in found]]
        yield "mean ± standard deviation", *(f"{np.mean(x):.2%} ± {np.std(x, ddof=1):.2%}" for x in columns)
