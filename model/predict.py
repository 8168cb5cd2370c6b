"""What a model makes of one picture, and how far that can be believed."""

from typing import NamedTuple

from model.classifier import Classifier
from model.preprocessing import Mode, Prepared, prepare

UNLIKE_CLOTHING = "this does not look like the clothing that the model knows"


class Answer(NamedTuple):
    """probabilities has every label, the most probable first. mode is the one that auto chose."""

    probabilities: dict[str, float]
    in_distribution: bool
    ood_score: float
    mode: str
    warnings: list[str]


def predict_picture(picture: bytes, classifier: Classifier, *, mode: Mode, max_pixels: int) -> Answer:
    """One picture, without a broker: `mlaas predict --local`. Raises PictureError."""
    prepared = prepare(picture, mode=mode, max_pixels=max_pixels)
    predictions = classifier.predict(prepared.pixels[None])
    row, score = predictions.probabilities[0].tolist(), float(predictions.ood_scores[0])
    ranked = sorted(zip(row, classifier.manifest.labels, strict=True), reverse=True)
    probabilities = {label: probability for probability, label in ranked}
    warnings = warnings_of(prepared, score)
    return Answer(probabilities, is_in_distribution(score), score, prepared.mode, warnings)


def is_in_distribution(ood_score: float) -> bool:
    """Whether the picture is of what the model was trained on, by its score; see model.ood."""
    return ood_score <= 1


def warnings_of(prepared: Prepared, ood_score: float) -> list[str]:
    """Why the answer may be wrong, fit to be shown to whoever sent the picture."""
    return [*prepared.warnings, *([] if is_in_distribution(ood_score) else [UNLIKE_CLOTHING])]
