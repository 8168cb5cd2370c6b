"""What is measured of a model, as reports/<model>/*.json has it. Shares and accuracies are fractions."""

import msgspec

from model.training.ood_sets import OodFigures


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """How far probabilities can be believed: see manifest.Metrics."""

    ece: float
    classwise_ece: float
    nll: float
    brier: float


class Robustness(msgspec.Struct, frozen=True, kw_only=True):
    """Accuracy on corrupted pictures: of each corruption, its levels from mild to severe.

    clean is the accuracy on the same pictures as they are. mean is over the corruptions, each counted as the
    mean of its levels.
    """

    count: int
    clean: float
    mean: float
    corruptions: dict[str, tuple[float, ...]]


class Evaluation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One model on the test pictures: metrics.json.

    keras_sha256 says which weights these are. confusion counts pictures: a row for each true label, a column
    for each answer. temperature is what the logits were divided by; before_temperature is without. macs is
    multiplications with addition for one picture. ood has the sets of strangers by name.
    """

    model: str
    version: str
    keras_sha256: str
    runtime: str
    accuracy: float
    top2_accuracy: float
    count: int
    ece: float
    classwise_ece: float
    nll: float
    brier: float
    temperature: float
    before_temperature: Calibration
    macs: int
    parameters: int
    per_class: dict[str, float]
    confusion: tuple[tuple[int, ...], ...]
    robustness: Robustness | None = None
    ood: dict[str, OodFigures] | None = None


class Flagged(msgspec.Struct, frozen=True, kw_only=True):
    """How many of so many photos scored above 1, as not like the training pictures."""

    flagged: int
    total: int


class Right(msgspec.Struct, frozen=True, kw_only=True):
    """How many of so many photos got an answer that counts as right."""

    right: int
    total: int
    accuracy: float


class PhotoFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One model on a folder of photos: photos.json.

    baseline has the accuracy of simpler ways to prepare the photos. per_kind has the kinds that the model
    knows. ood has the kinds that it does not know; auroc, the chance that a photo of one of those scores
    above one of a known kind; and known_flagged, the share of the known ones that score above 1. modes and
    warnings count photos.
    """

    model: str
    version: str
    keras_sha256: str
    accuracy: float
    right: int
    total: int
    baseline: dict[str, float]
    per_kind: dict[str, Right]
    ood: dict[str, Flagged | float]
    modes: dict[str, int]
    warnings: dict[str, int]


class Epoch(msgspec.Struct, frozen=True):
    """One pass over the training pictures, as history.json has it. Losses are in nats."""

    loss: float
    accuracy: float
    held_out_loss: float
    held_out_accuracy: float
    seconds: float


class History(msgspec.Struct, frozen=True):
    """history.json, as far as it is shown."""

    history: tuple[Epoch, ...]


class Seed(msgspec.Struct, frozen=True, kw_only=True):
    """One training of the same recipe from other first weights: an entry of seeds.json."""

    seed: int
    accuracy: float
    held_out_accuracy: float
