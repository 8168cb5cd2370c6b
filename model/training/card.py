"""The model card: docs/model-card-<model>.md, written from the manifest and from reports/<model>/ alone."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from model.manifest import Manifest, ModelError, replace
from model.training import card_sections as sections
from model.training.card_sections import Sources
from model.training.figures import Evaluation, PhotoFigures, Seed

Structure = TypeVar("Structure")

SECTIONS: tuple[Callable[[Sources], str], ...] = (
    sections.purpose,
    sections.data,
    sections.network,
    sections.training,
    sections.accuracy,
    sections.calibration,
    sections.robustness,
    sections.strangers,
    sections.photos,
    sections.seeds,
    sections.limits,
    sections.reproduce,
)


def write(manifest: Manifest, reports_dir: Path, docs_dir: Path) -> Path:
    """Writes the card and returns where. Raises ModelError where there is no report of these weights."""
    path = docs_dir / f"model-card-{manifest.name}.md"
    docs_dir.mkdir(parents=True, exist_ok=True)
    replace(path, render(sources(manifest, reports_dir, docs_dir)).encode())
    return path


def sources(manifest: Manifest, reports_dir: Path, docs_dir: Path) -> Sources:
    """What is in the model's folder of reports; photos that other weights were tried on are left out."""
    folder = reports_dir / manifest.name
    metrics = read(folder / "metrics.json", Evaluation)
    if metrics is None or metrics.keras_sha256 != manifest.keras_sha256:
        raise ModelError(
            f"{folder} has no figures of these weights. Run: mlaas evaluate --model {manifest.name} --report"
        )
    photos = read(folder / "photos.json", PhotoFigures)
    same = photos is not None and photos.keras_sha256 == manifest.keras_sha256
    return Sources(
        manifest=manifest,
        metrics=metrics,
        photos=photos if same else None,
        seeds=read(folder / "seeds.json", tuple[Seed, ...]) or (),
        pictures=frozenset(path.name for path in folder.glob("*.png")),
        folder=Path(os.path.relpath(folder, docs_dir)).as_posix(),
    )


def read(path: Path, kind: type[Structure]) -> Structure | None:
    """What the file has; None without one. Raises ModelError."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        raise ModelError(
            f"{path} is not what it should be ({error}). Delete it and write it anew."
        ) from error


def render(found: Sources) -> str:
    """The whole card; sections without figures are left out."""
    written = (section(found) for section in SECTIONS)
    return "\n\n".join(text for text in written if text) + "\n"
