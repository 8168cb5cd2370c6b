"""What can be set. The values, with a reason for each, are in configs/; there are none in code."""

from typing import Annotated, Literal

import msgspec

RuntimeName = Literal["auto", "onnx", "keras"]
Fraction = Annotated[float, msgspec.Meta(ge=0, le=1)]
ModelName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class ModelSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which models are served, and how. The first answers where none is asked for by name.

    runtime auto means: the ONNX export when it belongs to this .keras file, else Keras.
    """

    names: Annotated[tuple[ModelName, ...], msgspec.Meta(min_length=1)]
    weights_dir: str
    runtime: RuntimeName
    threads: int
    max_pixels: int


class NetworkSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The network: see model.training.network. members answer together, by the mean of their logits.

    mirrored: they answer twice, to the picture and to its mirror image, and the mean counts.
    """

    kind: Literal["vgg", "resnet"]
    widths: tuple[int, ...]
    members: Annotated[int, msgspec.Meta(ge=1)]
    mirrored: bool = False


class AugmentationSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How training pictures are varied. Areas are fractions of the picture; plain_epochs have no erasing.

    editions is how many variations of the whole training set a teacher answers, epochs taking them in turn;
    without a teacher, or with 0, every epoch has its own. photo_share is how many pictures become like what
    is cut out of a phone's photo.
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
    """Another model whose answers are learned beside the labels (Hinton et al., arXiv 1503.02531).

    weight is the share of its part in the loss; temperature softens its answers. Without a name
    there is none.
    """

    name: str
    weight: Fraction
    temperature: float


class SkippingSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which of the easy pictures an epoch leaves out; see model.training.skipping."""

    easy: Fraction
    skipped: Annotated[float, msgspec.Meta(ge=0, lt=1)]
    first_epochs: int
    every_epochs: Annotated[int, msgspec.Meta(ge=1)]


class TrainSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a model is trained.

    The members of the network learn one after another: the first for so many epochs, each other for so many
    later_epochs. seed decides first weights and order; data_seed which pictures are held out, and how the
    others vary. runs is how many seeds are tried, from this one on. limit_pictures cuts the training and test
    sets (0: all of them).
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


def recipe(settings: TrainSettings) -> TrainSettings:
    """The settings without those that do not change the weights: names, and where files are."""
    return msgspec.structs.replace(
        settings, name="recipe", version="", data_dir="", checkpoint_dir="", reports_dir=""
    )
