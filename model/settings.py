"""The settings of models and of training. configs/ has the values and the reason for each."""

from typing import Annotated, Literal

import msgspec

RuntimeName = Literal["auto", "onnx", "keras"]
Fraction = Annotated[float, msgspec.Meta(ge=0, le=1)]
ModelName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class ModelSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which models are served, and how. The first answers requests that name none.

    runtime: auto is the ONNX export if it was made from the model's .keras file, otherwise Keras.
    """

    names: Annotated[tuple[ModelName, ...], msgspec.Meta(min_length=1)]
    weights_dir: str
    runtime: RuntimeName
    threads: int
    max_pixels: int


class NetworkSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The network, see model.training.network; it averages the logits of its members.

    mirrored: over the picture and its mirror image, too.
    """

    kind: Literal["vgg", "resnet"]
    widths: tuple[int, ...]
    members: Annotated[int, msgspec.Meta(ge=1)]
    mirrored: bool = False


class AugmentationSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How training pictures are varied. Areas are fractions of the picture.

    editions: how many variations of the training set a teacher labels, which the epochs use in turn; without
    a teacher, or with 0, every epoch has its own. plain_epochs: at the end, without erasing. photo_share: of
    the pictures, how many become like what is cut out of a phone photo.
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
    """A model whose answers are learned together with the labels (Hinton et al., arXiv 1503.02531).

    name: empty for none. weight: the share of its answers in the loss. temperature: softens its answers.
    """

    name: str
    weight: Fraction
    temperature: float


class SkippingSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How many of the easy pictures an epoch leaves out; see model.training.lessons."""

    easy: Fraction
    skipped: Annotated[float, msgspec.Meta(ge=0, lt=1)]
    first_epochs: int
    every_epochs: Annotated[int, msgspec.Meta(ge=1)]


class TrainSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a model is trained.

    seed: determines first weights and order. runs: how many seeds are tried, counting up from seed.
    data_seed: determines which pictures are held out, and how the others vary. epochs: of the first member;
    the others, which are trained after it, have later_epochs. limit_pictures: of both parts of the data set
    (0: all of them).
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
    """The settings that determine the weights; the others, names and folders, are blank."""
    return msgspec.structs.replace(
        settings, name="recipe", version="", data_dir="", checkpoint_dir="", reports_dir=""
    )
