"""Turns picture files into predictions.

The settings of models and training are here; configs/ has their values and the reasons for them.
"""

from typing import Annotated, Literal

import msgspec

RuntimeName = Literal["auto", "onnx", "keras"]
Fraction = Annotated[float, msgspec.Meta(ge=0, le=1)]
ModelName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class ModelSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which models to serve, and how.

    names: empty for all that have a folder in weights_dir. default: the one that answers requests that name
    none; the first of names, if there are any. runtime: auto selects the ONNX export if it was made from the
    current .keras file, otherwise Keras.
    """

    names: tuple[ModelName, ...]
    default: ModelName
    weights_dir: str
    runtime: RuntimeName
    threads: int
    max_pixels: int

    @property
    def default_name(self) -> str:
        return self.names[0] if self.names else self.default


class NetworkSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The network, which averages the logits of its members; see model.training.network.

    mirrored: whether it also averages over the picture and its mirror image.
    """

    kind: Literal["vgg", "resnet"]
    widths: tuple[int, ...]
    members: Annotated[int, msgspec.Meta(ge=1)]
    mirrored: bool = False


class AugmentationSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How training pictures are augmented. Areas are fractions of the picture.

    editions: the number of augmented training sets that a teacher labels and the epochs use in turn; without
    a teacher, or with 0, every epoch has its own. plain_epochs: the number of final epochs without erasing.
    photo_share: the fraction of pictures made to look like cut-outs from phone photos.
    """

    editions: Annotated[int, msgspec.Meta(ge=0)]
    shift_pixels: int
    flip: bool
    erase_probability: Fraction
    erase_area_min: Fraction
    erase_area_max: Fraction
    plain_epochs: int
    photo_share: Fraction


class TeacherSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The model to distil from (Hinton et al., arXiv 1503.02531).

    name: empty for none. weight: its share of the loss. temperature: the divisor of its logits.
    """

    name: str
    weight: Fraction
    temperature: float


class SkippingSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How many of the easy pictures an epoch skips; see model.training.lessons."""

    easy: Fraction
    skipped: Annotated[float, msgspec.Meta(ge=0, lt=1)]
    first_epochs: int
    every_epochs: Annotated[int, msgspec.Meta(ge=1)]


class TrainSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How to train a model.

    served: see Manifest. seed: determines the initial weights and the order of pictures. runs: the number
    of seeds to try, counting up from seed. data_seed: determines which pictures are held out, and the
    augmentation of the others. epochs: of the first member; the members trained after it have later_epochs.
    limit_pictures: the number to use of both training and test pictures (0: all).
    """

    name: ModelName
    version: str
    data_dir: str
    checkpoint_dir: str
    reports_dir: str
    seed: int
    runs: Annotated[int, msgspec.Meta(ge=1)]
    data_seed: int
    network: NetworkSettings
    precision: Literal["float32", "mixed_bfloat16"]
    epochs: int
    later_epochs: int
    warmup_epochs: int
    batch_size: int
    learning_rate: float
    momentum: float
    weight_decay: float
    ema_decay: float
    validation_pictures: int
    limit_pictures: int
    augmentation: AugmentationSettings
    teacher: TeacherSettings
    skipping: SkippingSettings
    served: bool = True


def recipe(settings: TrainSettings) -> TrainSettings:
    """The settings that determine the weights: names and folders are blank."""
    return msgspec.structs.replace(
        settings, name="recipe", version="", served=True, data_dir="", checkpoint_dir="", reports_dir=""
    )
