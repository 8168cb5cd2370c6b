"""models: list what is served; add, show, check and remove model folders."""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlaas.commands import JSON, YES, Chosen, Function, aligned, confirm, harmless, is_json, pass_chosen
from mlaas.commands.predict import URL, gateway
from mlaas.errors import UserError, reported

if TYPE_CHECKING:
    from mlaas_client.results import Model, Version
    from model.classifier import Classifier
    from model.manifest import Manifest
    from model.serving import Pointer

NAME = click.argument("name")

_SHOWN = 100


@click.group(invoke_without_command=True)
@URL
@JSON
@click.pass_context
def models(context: click.Context, url: str | None, as_json: bool) -> None:
    """List the models that are served or cannot be, or manage the folders in model.weights_dir."""
    if context.invoked_subcommand is not None:
        return
    with gateway(url) as client:
        served = client.models()
    if is_json(as_json):
        for model in served:
            click.echo(json.dumps(model.raw))
        return
    rows = [row for model in served for row in _rows(model)]
    for line in aligned([("NAME", "VERSION", "ANSWERS", "DEFAULT", "RUNTIME", "ACCURACY", "NOTE"), *rows]):
        click.echo(line)


def _rows(model: "Model") -> Iterable[tuple[str, ...]]:
    """One for each version. Gateways from before versions were listed say nothing of shares."""
    if not model.versions:
        yield _row(model, model.version, "", model.accuracy, "")
    for its in model.versions:
        answers = f"{its.share_percent:>5} %" if its.share_percent else ""
        yield _row(model, its.version, answers, its.accuracy, its.problem or _compared(its))


def _row(model: "Model", version: str, answers: str, accuracy: float | None, note: str) -> tuple[str, ...]:
    is_main = version == model.version
    return (
        harmless(model.name),
        harmless(version),
        answers,
        "yes" if model.default and is_main else "",
        harmless(model.runtime) if is_main else "",
        "" if accuracy is None else f"{accuracy:8.2%}",
        harmless(note),
    )


def _compared(its: "Version") -> str:
    """What a shadow made of the pictures that another version answered."""
    if its.shadow is None:
        return ""
    seen = its.shadow["same"] + its.shadow["other"]
    same = f"{its.shadow['same'] / seen:.1%} of {seen} the same" if seen else "nothing compared yet"
    more = [f"{its.shadow[how]} {how}" for how in ("failed", "skipped") if its.shadow[how]]
    return f"shadow: {', '.join([same, *more])}"


def _golden(_: click.Context, __: click.Parameter, given: tuple[str, ...]) -> list[tuple[Path, str]]:
    pairs = [each.rpartition("=") for each in given]
    if not all(path and label for path, _, label in pairs):
        raise click.BadParameter("write it as FILE=LABEL, or FILE=NUMBER")
    return [(Path(path), label) for path, _, label in pairs]


def _labels(_: click.Context, __: click.Parameter, given: str | None) -> list[str] | None:
    if given is None:
        return None
    names = Path(given).read_text().splitlines() if Path(given).is_file() else given.split(",")
    return [name.strip() for name in names if name.strip()]


def _numbers(_: click.Context, __: click.Parameter, given: str | None) -> list[float]:
    try:
        return [float(each) for each in given.split(",")] if given else []
    except ValueError as error:
        raise click.BadParameter("write numbers with commas between them: 0.485,0.456,0.406") from error


def _size(_: click.Context, __: click.Parameter, given: str | None) -> tuple[int, int] | None:
    if given is None:
        return None
    found = re.fullmatch(r"([1-9]\d{0,4})(?:x([1-9]\d{0,4}))?", given)
    if not found:
        raise click.BadParameter("write it as 224, or height x width: 192x256")
    return int(found[1]), int(found[2] or found[1])


def _choice(option: str, *values: str, help: str) -> Callable[[Function], Function]:
    return click.option(option, type=click.Choice(values), help=help)


@models.command()
@NAME
@click.argument("path", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--labels", callback=_labels, help="Names separated by commas, or a file with one on each line."
)
@click.option("--version", help="The version.  [default: the one after the latest, or 1.0.0]")
@_choice(
    "--kind",
    "image",
    "tensor",
    help="Pictures, or numbers as they are.  [default: by the input's shape]",
)
@_choice("--resize", "stretch", "fit", "crop", help="How a picture gets the input's size.  [default: crop]")
@click.option("--crop-fraction", type=click.FloatRange(0, 1, min_open=True), default=1.0, show_default=True)
@_choice(
    "--interpolation",
    *("nearest", "area", "bilinear", "bicubic", "lanczos"),
    help="How pixels are resampled.  [default: bilinear]",
)
@_choice(
    "--scale", "0..255", "0..1", "-1..1",
    help="What pixel values from 0 to 255 become.  [default: 0..1, or 0..255 if the network scales them]",
)  # fmt: skip
@click.option("--mean", callback=_numbers, help="Subtracted after scaling: one number for each channel.")
@click.option("--std", callback=_numbers, help="Divides the result: one number for each channel.")
@click.option("--invert", is_flag=True, help="Take 255 minus each pixel value.")
@_choice(
    "--output",
    *("probabilities", "logits", "sigmoid", "sigmoids", "numbers"),
    help="What the network gives.  [default: by what it gives for trial inputs]",
)
@click.option(
    "--golden",
    multiple=True,
    callback=_golden,
    metavar="FILE=ANSWER",
    help="A picture, or a row in JSON, and the label or number that must be the answer; repeatable.",
)
@click.option(
    "--size", callback=_size, metavar="HxW", help="Height and width for a network that takes any size."
)
@click.option(
    "--int8",
    "pictures",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="Quantize to 8-bit integers, calibrated with the pictures in this folder.",
)
@click.option(
    "--force", is_flag=True, help="Keep the quantized model even if over 5 % of the answers change."
)
@pass_chosen
def add(chosen: Chosen, name: str, path: Path, pictures: Path | None, force: bool, **given: Any) -> None:
    """Make a model folder from a .onnx, .keras or .h5 file.

    Prints what it finds in the file and what it assumes, and tries the model before it keeps it. Exporting a
    Keras file to ONNX, and --int8, need the packages for training.
    """
    from model import adding, manifest, serving
    from model.manifest import ModelError

    loaded = chosen.load()
    settings = loaded.model
    with reported(os.EX_DATAERR, ModelError):
        if path.suffix == ".onnx":
            original, exported = None, path.read_bytes()
        elif path.suffix in (".keras", ".h5"):
            os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
            os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # TensorFlow announces these on every start
            from model.training.export import original as read_original

            original = read_original(path, given["size"])
            exported = original.exported
        else:
            raise UserError(f"{path} is not a .onnx, .keras or .h5 file", exit_code=os.EX_DATAERR)
        wanted = adding.Wanted(name=name, **given)
        quantize = _quantizing(pictures, force) if pictures else None
        weights_dir = Path(settings.weights_dir)
        folder = adding.add(str(path), exported, original, wanted, weights_dir, click.echo, quantize)
        pointer = serving.read(folder.parents[1], name)
    if pointer is not None and folder.name not in pointer.named:
        click.echo(f"\n{folder} is ready; {pointer.in_words}. To have it answer, and to ask it:\n")
        click.echo(f"  mlaas models promote {name} {folder.name}")
    elif settings.names and name not in settings.names:
        click.echo(f"\n{folder} is ready. To serve it, and to ask it:\n")
        click.echo(f"  mlaas --set 'model.names=[{', '.join([*settings.names, name])}]' up")
    else:
        click.echo(f"\n{folder} is ready. Running workers serve it in some seconds. To ask it:\n")
    url = (os.environ.get("MLAAS_URL") or f"localhost:{loaded.gateway.port}").rstrip("/")
    click.echo(f"  {_curl(manifest.read(folder), url)}")


def _curl(its: "Manifest", url: str) -> str:
    """The line that asks the model, with a picture or a row of zeros."""
    where = f"'{url}/predict?model={its.name}'"
    if its.kind != "tensor":
        return f"curl -F file=@PICTURE {where}"
    row: Any = False if its.input.dtype == "bool" else 0
    for size in reversed(its.input.shape):
        row = [row] * size
    body = json.dumps({"inputs": [row]})
    shown = f"'{body}'" if len(body) <= _SHOWN else "@ROW.json"
    return f"curl -H 'Content-Type: application/json' -d {shown} {where}"


def _quantizing(pictures: Path, force: bool) -> "Callable[[bytes, Classifier], bytes]":
    from model.training.export import in_8_bit

    return partial(in_8_bit, folder=pictures, force=force, say=click.echo)


@models.command("list")
@JSON
@pass_chosen
def list_folders(chosen: Chosen, as_json: bool) -> None:
    """List the model folders and which versions answer.

    Says what is wrong with the manifests of those that answer; `mlaas models check` tries one.
    """
    import msgspec

    from model import manifest

    weights_dir = Path(chosen.load().model.weights_dir)
    found = {name: manifest.versions(weights_dir, name) for name in manifest.names(weights_dir)}
    looked = {name: _look(weights_dir, name) for name in found}
    if is_json(as_json):
        its = {}
        for name, (pointer, problem) in looked.items():
            said = msgspec.to_builtins(pointer) if pointer else {}
            its[name] = {"versions": found[name], **said, **({"problem": problem} if problem else {})}
        click.echo(json.dumps(its))
        return
    rows = [
        (name, ", ".join(found[name]), pointer.in_words if pointer else "", harmless(problem))
        for name, (pointer, problem) in looked.items()
    ]
    for line in aligned([("NAME", "VERSIONS", "SERVING", "PROBLEM"), *rows]):
        click.echo(line)


def _look(weights_dir: Path, name: str) -> "tuple[Pointer | None, str]":
    """Which versions of a model answer, and why one of them cannot, as far as its manifest tells."""
    from model import manifest, serving
    from model.manifest import ModelError

    pointer = None
    try:
        pointer = serving.current(weights_dir, name)
        for version in pointer.named:
            manifest.read(manifest.folder(weights_dir, name, version))
    except ModelError as error:
        return pointer, str(error)
    return pointer, ""


VERSION = click.option("--version", default="", help="The version.  [default: the one that answers]")


@models.command()
@NAME
@VERSION
@pass_chosen
def show(chosen: Chosen, name: str, version: str) -> None:
    """Print the manifest of a model, and which versions answer."""
    from model import serving
    from model.manifest import ModelError

    folder, _ = _read(chosen, name, version)
    click.echo((folder / "model.yaml").read_text(), nl=False)
    with reported(os.EX_DATAERR, ModelError):
        click.echo(f"# {name}: {serving.current(folder.parents[1], name).in_words}")


@models.command()
@NAME
@click.argument("version")
@click.option(
    "--share", "percent", type=click.IntRange(1, 99), metavar="PERCENT",
    help="Have it answer only this share of the requests.",
)  # fmt: skip
@click.option("--shadow", is_flag=True, help="Only compare its answers with those of the one that answers.")
@pass_chosen
def promote(chosen: Chosen, name: str, version: str, percent: int | None, shadow: bool) -> None:
    """Have a version answer.

    Workers load and check it beside the one that answers, and take it over if nothing is wrong with it.
    """
    from model import serving
    from model.manifest import ModelError

    if percent is not None and shadow:
        raise click.UsageError("a version either has a share or is a shadow: give one of the options")
    folder, _ = _read(chosen, name, version)
    with reported(os.EX_DATAERR, ModelError):
        before = serving.current(folder.parents[1], name)
        if percent is not None:
            pointer = serving.shared(before, version, percent)
        else:
            pointer = (serving.shadowed if shadow else serving.promoted)(before, version)
    _point(folder.parents[1], name, pointer)


@models.command()
@NAME
@pass_chosen
def rollback(chosen: Chosen, name: str) -> None:
    """Go one step back.

    Ends the share and the shadow or, if there are none, has the version answer that did so before.
    """
    from model import serving
    from model.manifest import ModelError

    weights_dir = Path(chosen.load().model.weights_dir)
    with reported(os.EX_DATAERR, ModelError):
        pointer = serving.rolled_back(serving.current(weights_dir, name))
    _read(chosen, name, pointer.version)
    _point(weights_dir, name, pointer)


def _point(weights_dir: Path, name: str, pointer: "Pointer") -> None:
    from model import serving

    serving.write(weights_dir, name, pointer)
    click.echo(f"{weights_dir / name / serving.FILE}: {pointer.in_words}")
    click.echo("Workers take this over in some seconds: `mlaas models` shows what they serve, and why not.")


@models.command()
@NAME
@VERSION
@pass_chosen
def check(chosen: Chosen, name: str, version: str) -> None:
    """Load a model as a worker would, and compare its golden answers."""
    from model.classifier import load
    from model.manifest import ModelError

    folder, its = _read(chosen, name, version)
    settings = chosen.load().model
    with reported(os.EX_DATAERR, ModelError):
        loaded = load(folder.parents[1], name, settings.runtime, settings.threads, its.version)
    what = "rows" if its.kind == "tensor" else "pictures"
    click.echo(f"{name} {its.version} can be served: {loaded.runtime}, {len(its.golden)} golden {what}")


@models.command()
@NAME
@click.option("--version", required=True, help="The version.")
@YES
@pass_chosen
def remove(chosen: Chosen, name: str, version: str, yes: bool) -> None:
    """Delete the folder of a version.

    Workers stop serving it in some seconds. While serving.yaml names the version, it is deleted only if the
    model has no other: promote another one first.
    """
    import msgspec

    from model import manifest, serving
    from model.manifest import ModelError

    with reported(os.EX_DATAERR, ModelError):
        weights_dir = Path(chosen.load().model.weights_dir)
        folder = manifest.folder(weights_dir, name, version)
        pointer = serving.read(weights_dir, name)
    is_last = manifest.versions(weights_dir, name) == [version]
    if pointer is not None and version in pointer.named and not is_last:
        hint = f"`mlaas models promote {name} VERSION` or `mlaas models rollback {name}` first"
        raise UserError(f"{name}: {pointer.in_words}; {version} is not deleted", hint, os.EX_DATAERR)
    is_previous = pointer is not None and version == pointer.previous
    about = ", the last version of it" if is_last else ", which rollback goes back to" if is_previous else ""
    confirm(f"Delete {name} {version}{about}, from {weights_dir}?", yes)
    if pointer is not None and is_last:
        (folder.parent / serving.FILE).unlink()
    elif pointer is not None and is_previous:
        serving.write(weights_dir, name, msgspec.structs.replace(pointer, previous=None))
    shutil.rmtree(folder)
    if not any(folder.parent.iterdir()):
        folder.parent.rmdir()
    click.echo(f"{folder} is deleted")


def _read(chosen: Chosen, name: str, version: str) -> "tuple[Path, Manifest]":
    from model import manifest, serving
    from model.manifest import ModelError

    with reported(os.EX_DATAERR, ModelError):
        weights_dir = Path(chosen.load().model.weights_dir)
        folder = manifest.folder(weights_dir, name, version or serving.current(weights_dir, name).version)
        return folder, manifest.read(folder)
