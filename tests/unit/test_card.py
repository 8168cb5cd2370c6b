import re

import msgspec
import pytest

from mlaas.settings import ROOT
from model import manifest as manifests
from model.manifest import ModelError
from model.training import card
from model.training.dataset import LABELS
from model.training.figures import (
    Calibration,
    Evaluation,
    Flagged,
    OodFigures,
    PhotoFigures,
    Right,
    Robustness,
    Seed,
    read_record,
)
from tests.unit.measured_model import manifest, record

CONFUSION = tuple(
    tuple(40 if i == j else 10 if (i, j) == (6, 0) else 0 for j in range(10)) for i in range(10)
)

METRICS = Evaluation(
    model="tiny",
    version="7.1",
    keras_sha256="a" * 64,
    runtime="onnx",
    accuracy=0.9,
    top2_accuracy=0.9876,
    count=400,
    ece=0.0123,
    classwise_ece=0.0045,
    nll=0.2345,
    brier=0.1357,
    temperature=1.6,
    before_temperature=Calibration(ece=0.0321, classwise_ece=0.0054, nll=0.3456, brier=0.1468),
    macs=56789,
    parameters=1234,
    per_class={label: 0.8 if label == "Shirt" else 1.0 for label in LABELS},
    confusion=CONFUSION,
    robustness=Robustness(
        count=300, clean=0.911, mean=0.432, corruptions={"fog": (0.71, 0.52, 0.33), "mirror": (0.84,)}
    ),
    ood={"digits": OodFigures(auroc=0.957, false_positive_rate=0.1234, count=1797)},
)

PHOTOS = PhotoFigures(
    model="tiny",
    version="7.1",
    keras_sha256="a" * 64,
    accuracy=0.7,
    right=7,
    total=10,
    baseline={"plain inverted resize": 0.2},
    per_kind={"pants": Right(right=7, total=10, accuracy=0.7)},
    ood={"hat": Flagged(flagged=3, total=4), "auroc": 0.765, "known_flagged": 0.0625},
    modes={"photo": 13, "product": 1},
    warnings={},
)

SEEDS = (
    Seed(seed=1, accuracy=0.90, held_out_accuracy=0.80, seconds=60.0),
    Seed(seed=2, accuracy=0.92, held_out_accuracy=0.80, seconds=60.0),
)


@pytest.fixture
def write(tmp_path):
    """Writes a card from these files and no others."""

    def run(metrics=METRICS, plots=(), **files):
        folder = tmp_path / "reports" / "tiny"
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in {"metrics": metrics, **files}.items():
            (folder / f"{name}.json").write_bytes(msgspec.json.encode(content))
        for name in plots:
            (folder / name).touch()
        return card.write(manifest(), record(), tmp_path / "reports", tmp_path / "docs").read_text()

    return run


def test_every_figure_of_the_report_is_in_the_card(write):
    text = write(photos=PHOTOS, seeds=SEEDS)
    for row in (
        "# Model card: tiny 7.1",
        "**90.00% ± 1.50%** of the 400 test pictures",
        "98.76%",
        "| parameters | 1,234 |",
        "| multiply-adds per picture | 56,789 |",
        "| Shirt | 80.00% ± 5.66% | T-shirt/top (10) |",
        "| Bag | 100.00% ± 0.00% | nothing |",
        "| T-shirt/top, Shirt | 10 |",
        "| expected calibration error | 3.21% | 1.23% |",
        "| expected calibration error, mean over the classes | 0.54% | 0.45% |",
        "| negative log likelihood (nats) | 0.3456 | 0.2345 |",
        "| Brier score | 0.1468 | 0.1357 |",
        "| fog | 71.00% | 52.00% | 33.00% |",
        "| mirror | 84.00% |  |  |",
        "91.10%",
        "43.20%",
        "| digits | 1797 | 0.957 | 12.34% |",
        "| pants | 7 of 10 | 70.00% |",
        "| all, prepared by plain inverted resize |  | 20.00% |",
        "| hat | 3 of 4 |",
        "0.765",
        "6.25%",
        "photo 13, product 1",
        "| 2 | 92.00% | 80.00% |",
        "| mean ± standard deviation | 91.00% ± 1.41% | 80.00% ± 0.00% |",
        "81.23% of the held-out pictures",
        "epoch 8",
        "9 epochs and 12 minutes of Keras on tensorflow (keras 3.99)",
    ):
        assert row in text, row


def test_the_recipe_and_the_digests_come_from_the_record(write):
    text, its = write(), record()
    assert f"| learning_rate | {its.settings.learning_rate} |" in text
    assert f"| augmentation.shift_pixels | {its.settings.augmentation.shift_pixels} |" in text
    for digest in its.data_sha256.values():
        assert digest in text


def test_the_same_files_give_the_same_card(write):
    assert write(seeds=SEEDS) == write(seeds=SEEDS)


def test_what_was_not_measured_is_left_out(write):
    text = write(metrics=msgspec.structs.replace(METRICS, robustness=None, ood=None))
    for heading in ("## Robustness", "## Out-of-distribution", "## Photos", "## Seeds"):
        assert heading not in text
    assert "\n\n\n" not in text


def test_a_single_seed_has_no_deviation(write):
    assert "standard deviation" not in write(seeds=SEEDS[:1])


def test_existing_plots_are_linked_relative_to_the_card(write, tmp_path):
    text = write(plots=("mistakes.png", "reliability.png"))
    links = re.findall(r"!\[[^]]+\]\(([^)]+)\)", text)
    assert [link.rpartition("/")[2] for link in links] == ["mistakes.png", "reliability.png"]
    for link in re.findall(r"\]\(([^)]+)\)", text):
        assert (tmp_path / "docs" / link).exists(), link


def test_figures_of_other_weights_are_refused(write):
    with pytest.raises(ModelError, match=r"mlaas evaluate --model tiny --report"):
        write(metrics=msgspec.structs.replace(METRICS, keras_sha256="e" * 64))


def test_a_model_that_was_never_evaluated_has_no_card(tmp_path):
    with pytest.raises(ModelError, match="no figures for these weights"):
        card.write(manifest(), record(), tmp_path / "reports", tmp_path / "docs")


def test_photos_measured_with_other_weights_are_left_out(write):
    assert "## Photos" not in write(photos=msgspec.structs.replace(PHOTOS, keras_sha256="e" * 64))


def test_photos_of_known_kinds_only_have_no_second_table(write):
    text = write(photos=msgspec.structs.replace(PHOTOS, ood={"known_flagged": 0.1}))
    assert "\n## Photos" in text and "does not know" not in text


def test_a_damaged_file_is_named(write, tmp_path):
    with pytest.raises(ModelError, match=r"seeds\.json"):
        write(seeds=[{"seed": "one"}])


@pytest.mark.parametrize(
    "name", sorted(path.parents[1].name for path in (ROOT / "weights").glob("fashion*/*/training.json"))
)
def test_the_card_of_a_shipped_model_is_in_step_with_its_reports(name):
    path = ROOT / "docs" / f"model-card-{name}.md"
    folder = manifests.folder(ROOT / "weights", name)
    expected = card.render(manifests.read(folder), read_record(folder), ROOT / "reports", ROOT / "docs")
    assert path.read_text() == expected, f"Run: mlaas evaluate --model {name} --card"
