"""What `mlaas evaluate` prints: one figure a line. Pure."""

from collections.abc import Iterable, Sequence

from model.training.figures import Evaluation, Flagged, PhotoFigures

WIDTH = 30


def of_test_pictures(found: Evaluation) -> str:
    """Accuracy of each class and of all, calibration, cost, and what else was measured."""
    lines = [line(label, accuracy) for label, accuracy in found.per_class.items()]
    lines.append(f"{line('all', found.accuracy)}  of {found.count} pictures, {found.runtime}")
    lines.append(line("among the first two", found.top2_accuracy))
    lines.append("")
    lines += calibration(found)
    lines.append(f"{'multiply-adds, parameters':{WIDTH}} {found.macs:,}, {found.parameters:,}")
    if found.robustness:
        its = found.robustness
        lines += ["", line("uncorrupted", its.clean), line("mean of corruptions", its.mean)]
        lines += [line(name, *levels) for name, levels in its.corruptions.items()]
    if found.ood:
        lines += ["", f"{'strangers':{WIDTH}}   AUROC  not noticed"]
        lines += [
            f"{name:{WIDTH}} {its.auroc:7.3f} {its.false_positive_rate:8.2%}"
            for name, its in found.ood.items()
        ]
    return "\n".join(lines)


def calibration(found: Evaluation) -> Iterable[str]:
    """Before and after the temperature."""
    before = found.before_temperature
    yield f"{'at temperature':{WIDTH}}       1 {found.temperature:7g}"
    yield line("expected calibration error", before.ece, found.ece)
    yield line("of each class, mean", before.classwise_ece, found.classwise_ece)
    yield f"{'negative log likelihood, nats':{WIDTH}} {before.nll:7.4f} {found.nll:7.4f}"
    yield f"{'Brier score':{WIDTH}} {before.brier:7.4f} {found.brier:7.4f}"


def of_photos(found: PhotoFigures) -> str:
    """Accuracy of each kind and of all, of the baselines, and how many strangers were noticed."""
    lines = [part(kind, its.right, its.total) for kind, its in found.per_kind.items()]
    lines.append(part("all", found.right, found.total))
    lines += [line(f"prepared by {name}", share) for name, share in found.baseline.items()]
    lines += ["", "not in the data set, noticed:"]
    lines += [
        part(kind, its.flagged, its.total) for kind, its in found.ood.items() if isinstance(its, Flagged)
    ]
    lines += [f"{name:{WIDTH}} {its:7.3f}" for name, its in found.ood.items() if isinstance(its, float)]
    counted = (("mode", found.modes), ("warning", found.warnings))
    lines += ["", *(f"{what} {name}: {count}" for what, counts in counted for name, count in counts.items())]
    return "\n".join(lines)


def part(name: str, count: int, total: int) -> str:
    share = count / total if total else 0.0
    return f"{line(name, share)}  {count} of {total}"


def line(name: str, *shares: float) -> str:
    """Fractions as percentages."""
    return " ".join([f"{name:{WIDTH}}", *columns(shares)])


def columns(shares: Sequence[float]) -> Iterable[str]:
    return (f"{share:7.2%}" for share in shares)
