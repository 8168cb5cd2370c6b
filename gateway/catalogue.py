"""Which models there are, as the workers say."""

import math
from collections.abc import Iterable, Sequence

from gateway.errors import UnknownModel
from messaging.served_model import ServedModel


class Catalogue:
    """What was heard last. Every worker serves the same models but while new ones are rolled out.

    What was heard stays known when the workers fall silent. Times are monotonic seconds.
    """

    def __init__(self) -> None:
        self.models: Sequence[ServedModel] = ()
        self._heard_at = -math.inf

    def heard(self, models: Sequence[ServedModel], now: float) -> None:
        """Of a worker that does not describe its models, an older one, there is nothing to learn."""
        self._heard_at = now
        self.models = models or self.models

    def age_s(self, now: float) -> float:
        return now - self._heard_at

    def named(self, name: str, version: str = "") -> ServedModel:
        """In any version if none is given. Raises UnknownModel, which names those that there are."""
        for model in self.models:
            if model.name == name and version in ("", model.version):
                return model
        served = (f"{model.name} {model.version}" for model in self.models)
        raise UnknownModel(no_such_model(name, version, served))


def no_such_model(name: str, version: str, served: Iterable[str]) -> str:
    """Says which there are."""
    what = f"no model {name[:100]!r}" + (f" of version {version[:100]!r}" if version else "")
    return f"{what}; served: {', '.join(served)}"
