"""Leaving out some of the easy pictures, so that an epoch takes about half the time.

After InfoBatch (Qin et al., arXiv 2303.04947): of the pictures with little loss a random part is skipped, and
the others of them count so much more, so that the expected gradient stays what it was.
"""

import numpy as np
from numpy.typing import NDArray

from model.settings import SkippingSettings, TrainSettings
from model.training.calibration import Losses

Chosen = tuple[NDArray[np.intp], NDArray[np.float32]]


def skips(settings: TrainSettings, epoch: int) -> bool:
    """Whether this epoch leaves pictures out; the first and the last ones do not."""
    rule, last = settings.skipping, settings.epochs - settings.augmentation.plain_epochs
    return rule.easy * rule.skipped > 0 and rule.first_epochs <= epoch < last


def judged(settings: TrainSettings, epoch: int) -> int:
    """The epoch before which the losses were last looked at."""
    rule = settings.skipping
    return epoch - (epoch - rule.first_epochs) % rule.every_epochs


def kept(pictures: int, rule: SkippingSettings) -> tuple[int, int]:
    """How many of the hard pictures and of the easy ones an epoch has."""
    easy = round(pictures * rule.easy)
    return pictures - easy, easy - round(easy * rule.skipped)


def steps(settings: TrainSettings, pictures: int, epoch: int) -> int:
    """Batches in this epoch."""
    shown = sum(kept(pictures, settings.skipping)) if skips(settings, epoch) else pictures
    return -(-shown // settings.batch_size)


def choose(losses: Losses, rule: SkippingSettings, random: np.random.Generator) -> Chosen:
    """Indices of the pictures to show, in random order, and what each counts: both (n,)."""
    hard, easy = kept(len(losses), rule)
    order = np.argsort(-losses, kind="stable")
    chosen = np.concatenate((order[:hard], random.choice(order[hard:], easy, replace=False)))
    weights = np.ones(len(chosen), np.float32)
    weights[hard:] = (len(losses) - hard) / max(easy, 1)
    shuffled = random.permutation(len(chosen))
    return chosen[shuffled], weights[shuffled]


def everything(pictures: int, random: np.random.Generator) -> Chosen:
    """All pictures, each counting once."""
    return random.permutation(pictures), np.ones(pictures, np.float32)
