"""One picture, without a broker: `mlaas predict --local`."""

from model.classifier import Classifier
from model.preprocessing import decode


def predict_picture(picture: bytes, classifier: Classifier, max_pixels: int) -> dict[str, float]:
    """The probability of each label, the most probable first. Raises PictureError."""
    row = classifier.predict(decode(picture, max_pixels=max_pixels)[None])[0].tolist()
    ranked = sorted(zip(row, classifier.manifest.labels, strict=True), reverse=True)
    return {label: probability for probability, label in ranked}
