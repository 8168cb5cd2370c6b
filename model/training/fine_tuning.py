"""Teaches ImageNet's network new labels from a few thousand photos.

Batch normalization keeps ImageNet's statistics, so that small batches do no harm.
An interrupted training resumes after its last whole epoch when the same command is run.
"""

import time
from pathlib import Path
from typing import Annotated

import keras
import msgspec
import numpy as np
from keras import layers
from msgspec.structs import replace
from numpy.typing import NDArray

from model import Fraction, ModelName
from model.garment import Pictures
from model.manifest import sha256
from model.training import imagenet, photo_variation
from model.training.evaluate import nll
from model.training.figures import Epoch
from model.training.learning import Checkpoints, Progress, Report, TrainingError, describe
from model.training.network import Objective, accuracy, targets
from model.training.passes import Shown, passes_of
from model.training.photo_variation import Photos, VariationSettings

AT_ONCE = 32
START_EPOCHS = 40
"""Of the last layer alone, which take seconds."""
Count = Annotated[int, msgspec.Meta(ge=0)]


class FineTuningSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a model for photos is trained; configs/clothing-photo.yaml has a value and a reason for each."""

    name: ModelName
    version: str
    labels: tuple[str, ...]
    train_dir: str
    choose_dir: str
    checkpoint_dir: str
    weights_dir: str
    seed: int
    side: Annotated[int, msgspec.Meta(ge=32)]
    mirrored: bool
    epochs: Count
    small_epochs: Count
    small_side: Annotated[int, msgspec.Meta(ge=32)]
    warmup_epochs: Count
    plain_epochs: Count
    batch_size: Annotated[int, msgspec.Meta(ge=1)]
    learning_rate: float
    weight_decay: float
    label_smoothing: Fraction
    ema_decay: Fraction
    dropout: Fraction
    drop_path: Fraction
    frozen_blocks: Count
    variation: VariationSettings


def read_settings(file: Path) -> FineTuningSettings:
    """The settings in a YAML file. Raises TrainingError."""
    try:
        settings = msgspec.yaml.decode(file.read_bytes(), type=FineTuningSettings)
    except OSError as error:
        raise TrainingError(f"{file} cannot be read ({error.strerror})") from error
    except msgspec.DecodeError as error:
        raise TrainingError(f"{file}: {error}") from error
    if settings.epochs <= settings.warmup_epochs:
        raise TrainingError(f"{file}: epochs must be greater than warmup_epochs")
    return settings


def checkpoints_of(settings: FineTuningSettings) -> Checkpoints:
    """Those of a training with these settings: a folder of their own for whatever changes the weights."""
    recipe = replace(
        settings,
        name="recipe",
        version="",
        train_dir="",
        choose_dir="",
        checkpoint_dir="",
        weights_dir="",
        mirrored=False,
    )
    digest = sha256(msgspec.json.encode(recipe))[:8]
    return Checkpoints(Path(settings.checkpoint_dir, f"{settings.name}-{digest}"))


def learn(
    settings: FineTuningSettings, photos: Photos, chosen_by: Photos, report: Report, *, progress_bar: bool
) -> tuple[Progress, keras.Model]:
    """Runs the remaining epochs; returns also the averaged network of the best. Raises TrainingError."""
    checkpoints = checkpoints_of(settings)
    keras.utils.set_random_seed(settings.seed)
    learner, averaged = compiled(settings, len(photos.images)), untrained(settings)
    progress = checkpoints.restore(learner, averaged)
    if done := progress.epochs_done:
        report(f"resuming after epoch {done} of {settings.epochs}")
    else:
        start(settings, learner, photos)
        averaged.set_weights(learner.get_weights())
    passes = passes_of(learner, averaged, settings.ema_decay)
    for epoch in range(done, settings.epochs):
        started = time.monotonic()
        loss, hits = passes.run(
            epoch, shown(settings, photos, epoch), settings.batch_size, progress_bar=progress_bar
        )
        held_out = logits_of(averaged, chosen_by.images)
        if not np.isfinite(loss) or not np.isfinite(held_out).all():
            raise TrainingError(f"The loss in epoch {epoch + 1} is not a number: lower learning_rate")
        progress = progress.after(
            Epoch(
                loss,
                hits,
                round(nll(held_out, chosen_by.labels), 5),
                float((held_out.argmax(axis=1) == chosen_by.labels).mean()),
                round(time.monotonic() - started, 1),
            )
        )
        checkpoints.save(learner, averaged, progress)
        report(describe(progress, settings.epochs))
    averaged.load_weights(checkpoints.best(progress))
    return progress, averaged


def untrained(settings: FineTuningSettings) -> keras.Model:
    """From pictures of any size, uint8 (n, height, width, 3), to logits, float32 (n, labels)."""
    pixels = keras.Input((None, None, 3), dtype="uint8", name="pixels")
    features = imagenet.features_to_train(pixels, settings.frozen_blocks, settings.drop_path)
    last = layers.Dense(len(settings.labels), name="logits")
    return keras.Model(pixels, last(layers.Dropout(settings.dropout)(features)))


def start(settings: FineTuningSettings, network: keras.Model, photos: Photos) -> None:
    """Gives the network ImageNet's weights, and its last layer what it learns from their features alone.

    Without the latter, the first gradients of a new last layer would undo what the others know (Kumar et al.,
    arXiv 2202.10054). Raises ImagenetError and ModelError.
    """
    imagenet.load(network, imagenet.weights())
    features = keras.Model(network.input, network.layers[-2].output)
    images = photo_variation.varied(
        photos, settings.small_side, settings.variation, (settings.seed, settings.epochs)
    )
    known = features.predict(images, batch_size=AT_ONCE, verbose=0)
    last = keras.Sequential([keras.Input(known.shape[1:]), layers.Dense(len(settings.labels))])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    last.compile(keras.optimizers.AdamW(0.001), loss)
    last.fit(known, photos.labels.astype(np.int64), batch_size=AT_ONCE, epochs=START_EPOCHS, verbose=0)
    network.layers[-1].set_weights(last.get_weights())


def compiled(settings: FineTuningSettings, photos: int) -> keras.Model:
    """The network with its loss and its optimizer, AdamW."""
    network = untrained(settings)
    steps = -(-photos // settings.batch_size)
    warmup = settings.warmup_epochs * steps
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, settings.epochs * steps - warmup, warmup_target=settings.learning_rate, warmup_steps=warmup
    )
    optimizer = keras.optimizers.AdamW(rate, weight_decay=settings.weight_decay)
    optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
    optimizer.build(network.trainable_variables)
    network.compile(optimizer, Objective(0.0, 1.0), metrics=[accuracy], jit_compile=False)
    return network


def shown(settings: FineTuningSettings, photos: Photos, epoch: int) -> Shown:
    """What an epoch shows, in order; seed and epoch determine it."""
    side = settings.small_side if epoch < settings.small_epochs else settings.side
    images = photo_variation.varied(photos, side, settings.variation, (settings.seed, epoch))
    classes = len(settings.labels)
    truth = targets(photos.labels, classes, None)
    truth[:] = truth * (1 - settings.label_smoothing) + settings.label_smoothing / classes
    random = np.random.default_rng((settings.seed, epoch))
    if epoch < settings.epochs - settings.plain_epochs:
        images, truth = photo_variation.mix(images, truth, settings.variation, random)
    order = random.permutation(len(images))
    return Shown(images[order], truth[order], np.ones(len(images), np.float32))


def logits_of(network: keras.Model, images: Pictures) -> NDArray[np.float32]:
    """float32 (n, labels)."""
    logits: NDArray[np.float32] = network.predict(images, batch_size=AT_ONCE, verbose=0)
    return logits
