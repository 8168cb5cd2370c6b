"""What can be set. The values, with a reason for each, are in configs/config.yaml; there are none in code."""

from typing import Literal

import msgspec

Runtime = Literal["auto", "onnx", "keras"]


class ModelSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which model is served, and how.

    runtime auto means: the ONNX export when it belongs to this .keras file, else Keras.
    """

    name: str
    weights_dir: str
    runtime: Runtime
    threads: int
    max_pixels: int


class AugmentationSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How training pictures are varied. Areas are fractions of the picture; plain_epochs have no erasing."""

    shift_pixels: int
    flip: bool
    erase_probability: float
    erase_area_min: float
    erase_area_max: float
    plain_epochs: int


class TrainSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How the model is trained.

    limit_pictures cuts the training and test sets (0: all of them); validation_pictures are held out of the
    training set to choose the epoch.
    """

    version: str
    data_dir: str
    checkpoint_dir: str
    seed: int
    widths: tuple[int, ...]
    epochs: int
    warmup_epochs: int
    batch_size: int
    learning_rate: float
    momentum: float
    weight_decay: float
    ema_decay: float
    validation_pictures: int
    limit_pictures: int
    augmentation: AugmentationSettings


def recipe(settings: TrainSettings) -> TrainSettings:
    """The settings without those that do not change the weights: the version, and where files are."""
    return msgspec.structs.replace(settings, version="", data_dir="", checkpoint_dir="")
