"""What a model card says, section by section, in Markdown. A section without figures is empty. Pure."""

from typing import NamedTuple

from model.manifest import Manifest
from model.training import card_tables as tables
from model.training.card_tables import percent, with_error
from model.training.figures import Evaluation, PhotoFigures, Seed

HUMANS = "People without knowledge of fashion are right on 83.5 % (arXiv 1708.07747, 1,000 test pictures)."


class Sources(NamedTuple):
    """What a card is made of. folder is that of the report, as the card links to it."""

    manifest: Manifest
    metrics: Evaluation
    photos: PhotoFigures | None
    seeds: tuple[Seed, ...]
    pictures: frozenset[str]
    folder: str


def picture(found: Sources, name: str, shows: str) -> str:
    return f"\n\n![{shows}]({found.folder}/{name})" if name in found.pictures else ""


def purpose(found: Sources) -> str:
    its = found.manifest
    return f"""# Model card: {its.name} {its.version}

Written by `mlaas evaluate --model {its.name} --report` from the figures in
[{found.folder}]({found.folder}/metrics.json); changes by hand are lost.

## What it is for

It says which of {len(its.labels)} kinds of clothing a picture shows ({", ".join(its.labels)}), how sure it
is, and how unlike its training pictures the picture is. It is meant for pictures of one article on a plain
background, and for trying out a service that has a model in it.

It is not for pictures of people or of several articles, not for other kinds of clothing, and not for
decisions about people. Its figures hold for the pictures they were measured on: try your own before you
rely on it."""


def data(found: Sources) -> str:
    its = found.manifest
    return f"""## Data

Fashion-MNIST (Xiao, Rasul and Vollgraf, arXiv 1708.07747), 28x28 grey pictures from Zalando's catalogue, in
the version corrected on 2017-08-31: duplicates, also between training and test set, were removed. Accuracies
published before are of the other version and are higher.

{its.settings.validation_pictures:,} of the training pictures, the same share of each class, are held out
(seed {its.settings.data_seed}); they choose the epoch, the temperature and the threshold for strangers.
The {found.metrics.count:,} test pictures choose nothing.

{tables.digests(its)}"""


def network(found: Sources) -> str:
    its = found.manifest
    net = its.settings.network
    mirrored = ", to the picture and to its mirror image" if net.mirrored else ""
    size = [("parameters", f"{its.parameters:,}"), ("multiply-adds a picture", f"{its.multiply_adds:,}")]
    return f"""## Network

A convolutional network of the kind `{net.kind}` with {", ".join(map(str, net.widths))} channels, see
`model/training/network.py`; members that answer together, by the mean of their logits:
{net.members}{mirrored}.
Input: uint8, {" x ".join(map(str, its.input_shape))}, grey, bright on black. Output: the softmax of the
logits over the temperature {its.temperature:g}.

{tables.table(["", ""], size)}"""


def training(found: Sources) -> str:
    its = found.manifest
    versions = ", ".join(f"{name} {version}" for name, version in its.software.items())
    epochs = " and ".join(map(str, its.best_epochs))
    return f"""## Training

Epochs run: {its.epochs}, in {its.wall_seconds / 60:.0f} minutes of Keras on {its.backend}; {versions}.
The weights are those after epoch {epochs}, right on
{percent(its.held_out_accuracy)} of the held-out pictures. The settings:

{tables.recipe(its.settings)}{picture(found, "learning-curves.png", "Loss and accuracy after each epoch")}"""


def accuracy(found: Sources) -> str:
    its = found.metrics
    return f"""## Accuracy

**{with_error(its.accuracy, its.count)}** of {its.count:,} test pictures, with the standard error; the right
label is among the first two answers on {percent(its.top2_accuracy)}. Run by {its.runtime}.
{HUMANS}

{tables.per_class(its, found.manifest.labels)}

These labels are most often taken for each other, either way:

{tables.confused(its, found.manifest.labels)}\
{picture(found, "confusion-matrix.png", "How often each label got each answer")}\
{picture(found, "mistakes.png", "The wrong answers that the model was most sure of")}"""


def calibration(found: Sources) -> str:
    its = found.metrics
    return f"""## Calibration

The logits are divided by {its.temperature:g}, fitted on the held-out pictures (Guo et al., arXiv
1706.04599). On the test pictures, over 15 bins of equal width:

{tables.calibration(its)}{picture(found, "reliability.png", "How often answers are right, by confidence")}"""


def robustness(found: Sources) -> str:
    if (its := found.metrics.robustness) is None:
        return ""
    return f"""## Robustness

Accuracy on {its.count:,} test pictures under the corruptions of Fashion-MNIST-C (Weiss and Tonella, ISSTA
2022) in an implementation of our own, with fixed noise. It is not that data set, and accuracies published for
that are not to be compared; what differs is in `model/training/corruptions.py`. This is the network alone:
what a service does to a picture first, as negating a dark one on white, is left out. As they are, these
pictures give {percent(its.clean)}; the mean over the corruptions is {percent(its.mean)}.

{tables.robustness(its)}"""


def strangers(found: Sources) -> str:
    if not (its := found.metrics.ood):
        return ""
    return f"""## Pictures of something else

A picture that scores above 1 is taken for something else; the threshold is set so that 5 % of the held-out
training pictures are. AUROC is the chance that a stranger scores above a test picture; not noticed are
strangers that score 1 or less. The detector learned from none of these sets, but what it learns from was
chosen with an eye on them: expect less on others.

{tables.strangers(its)}"""


def photos(found: Sources) -> str:
    if (its := found.photos) is None:
        return ""
    modes = ", ".join(f"{mode} {count}" for mode, count in its.modes.items())
    return f"""## Photos

{its.total} photos that people took with their phones, sorted as those of "clothing-dataset-small" are (Alexey
Grigorev and contributors, CC0 1.0; its validation part, where nothing else is said). None was trained on, but
the way that photos are prepared was developed with these: expect less on others. What counts as right for
each kind is in `model/training/photo_set.py`. How they were prepared: {modes}.

{tables.photos(its)}{unknown(its)}"""


def unknown(its: PhotoFigures) -> str:
    shares = {name: share for name, share in its.ood.items() if isinstance(share, float)}
    if "auroc" not in shares:
        return ""
    return f"""

Kinds of clothing that the model does not know; AUROC {shares["auroc"]:.3f} against the others, of which
{percent(shares["known_flagged"])} are noticed, too:

{tables.unknown_photos(its)}"""


def seeds(found: Sources) -> str:
    if not found.seeds:
        return ""
    return f"""## Seeds

The same recipe, trained from other first weights and in another order of pictures. Of these, the best on the
held-out pictures is shipped: that of seed {found.manifest.settings.seed}.

{tables.seeds(found.seeds)}"""


def limits(found: Sources) -> str:
    its = found.metrics
    shirt = f", {percent(its.per_class['Shirt'])} for Shirt" if "Shirt" in its.per_class else ""
    return f"""## Limits

- Shirt is hard to tell from T-shirt/top, Pullover and Coat at 28x28 pixels{shirt}.
- White clothes are absent from the data set (arXiv 1708.07747, section 2).
- Some labels are wrong (Müller and Markert, arXiv 1912.05283).
- Nothing in the data set is turned, dark on white, or among other things.
- A photo whose article cannot be told from its background is prepared badly, and answered badly."""


def reproduce(found: Sources) -> str:
    name = found.manifest.name
    config = "" if name == "fashion-mnist" else f"--config configs/{name}.yaml "
    return f"""## Reproduce it

```sh
.venv/bin/mlaas {config}train
.venv/bin/mlaas evaluate --model {name} --report
.venv/bin/mlaas evaluate --model {name} --photos FOLDER --report
```"""
