"""The pictures of a report: PNG files in few colours, to be read in grey, too."""

from collections.abc import Sequence
from io import BytesIO

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from PIL import Image

from model.arrays import Labels, Pictures, Probabilities
from model.training.evaluate import BINS, Bins
from model.training.figures import Epoch

COLOURS = 32
MISTAKES = 24
MISTAKES_ACROSS = 8


def learning_curves(history: Sequence[Epoch]) -> bytes:
    """Loss and accuracy after each epoch: of the network that learns, and of the averaged one on held-out
    pictures.
    """
    figure = Figure((9, 3.4), layout="constrained")
    loss, accuracy = figure.subplots(1, 2)
    curves(loss, [epoch.loss for epoch in history], [epoch.held_out_loss for epoch in history])
    loss.set(xlabel="epoch", ylabel="loss (nats)")
    trained = [epoch.accuracy * 100 for epoch in history]
    curves(accuracy, trained, [epoch.held_out_accuracy * 100 for epoch in history])
    accuracy.set(xlabel="epoch", ylabel="accuracy (%)")
    return png(figure)


def curves(axes: Axes, training: Sequence[float], held_out: Sequence[float]) -> None:
    """Two lines over the epochs, counted from 1."""
    epochs = range(1, len(training) + 1)
    axes.plot(epochs, training, color="0.55", linestyle="--", label="training, varied pictures")
    axes.plot(epochs, held_out, color="black", label="held out")
    axes.grid(color="0.9")
    axes.legend()


def confusion_matrix(confusion: Sequence[Sequence[int]], labels: Sequence[str]) -> bytes:
    """The numbers of pictures: a row for each label, a column for each answer."""
    figure = Figure((7, 6.4), layout="constrained")
    axes = figure.subplots()
    counts = np.array(confusion)
    axes.imshow(counts, cmap="Greys", norm=PowerNorm(0.4, 0, max(counts.max(), 1)))
    places = range(len(labels))
    axes.set_xticks(places, labels, rotation=45, ha="right")
    axes.set_yticks(places, labels)
    axes.set(xlabel="answer (number of pictures)", ylabel="label")
    for (row, column), count in np.ndenumerate(counts):
        dark = count > 0.18 * counts.max()  # where the colour map passes middle grey at this exponent
        axes.text(column, row, str(count), ha="center", va="center", color="white" if dark else "black")
    return png(figure)


def mistakes(pictures: Pictures, probabilities: Probabilities, truth: Labels, labels: Sequence[str]) -> bytes:
    """The wrong answers that the model was most sure of, the surest first."""
    figure = Figure((10, 5), layout="constrained")
    grid = figure.subplots(MISTAKES // MISTAKES_ACROSS, MISTAKES_ACROSS)
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[], frame_on=False)
    for axes, index in zip(grid.flat, surest_mistakes(probabilities, truth), strict=False):
        answer, confidence = labels[probabilities[index].argmax()], probabilities[index].max()
        axes.imshow(pictures[index], cmap="gray", vmin=0, vmax=255)
        caption = f"label {labels[truth[index]]}\nanswer {answer}\nat {confidence:.1%}"
        axes.set_xlabel(caption, fontsize=8)
    return png(figure)


def surest_mistakes(probabilities: Probabilities, truth: Labels) -> list[int]:
    """Where the most confident wrong answers are, at most 24, the surest first."""
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != truth)
    order = np.argsort(-probabilities[wrong].max(axis=1), kind="stable")
    return [int(index) for index in wrong[order][:MISTAKES]]


def reliability(before: Bins, after: Bins) -> bytes:
    """How often answers were right against how sure the model was, before and after the temperature; below,
    how many answers there are in each bin.
    """
    figure = Figure((5.2, 6), layout="constrained")
    shares, counts = figure.subplots(2, 1, height_ratios=[3, 1], sharex=True)
    shares.plot([0, 100], [0, 100], color="0.7", linestyle=":", label="perfect")
    for bins, name, style in ((before, "before", "s--"), (after, "after", "o-")):
        filled = bins.counts > 0
        sure, right = (100 * x[filled] / bins.counts[filled] for x in (bins.confidence, bins.hits))
        grey = "0.55" if name == "before" else "black"
        shares.plot(sure, right, style, color=grey, label=f"{name} the temperature")
    shares.set(ylabel="answers that are right (%)")
    shares.grid(color="0.9")
    shares.legend()
    counts.bar((np.arange(BINS) + 0.5) * 100 / BINS, after.counts, 90 / BINS, color="0.4")
    counts.set(yscale="log", xlabel="confidence (%)", ylabel="answers, after")
    return png(figure)


def png(figure: Figure) -> bytes:
    """The figure as a PNG file with a palette."""
    drawn, small = BytesIO(), BytesIO()
    figure.savefig(drawn, format="png")
    Image.open(drawn).convert("RGB").quantize(COLOURS).save(small, "PNG", optimize=True)
    return small.getvalue()
