"""Model files that are damaged: never ready, nothing consumed, and the reason said."""

import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import onnx
from confluent_kafka.admin import AdminClient

from model import manifest as manifests
from tests.e2e.services import ROOT
from tests.faults.fleet import Fleet
from tests.faults.outcome import Check, Outcome, least, none, outcome
from tests.faults.stage import Stage

NAME = "fashion-mnist"

Damage = Callable[[Path], None]


def corrupted_models(stage: Stage) -> Outcome:
    """Eight of them, each in a folder of its own."""
    cases = list(DAMAGES.items())[: stage.size(len(DAMAGES), 3)]
    ready, silent, consumed = 0, [], 0
    said = {}
    with stage.fleet() as fleet, tempfile.TemporaryDirectory() as temporary:
        for name, (damage, cause) in cases:
            folder = Path(shutil.copytree(ROOT / "weights", Path(temporary, name)))
            damage(folder)
            fleet.worker("worker", MLAAS_MODEL__WEIGHTS_DIR=str(folder))
            code = fleet.wait("worker")
            output = fleet.output("worker")
            said[name] = {
                "code": code,
                "said": output.strip().splitlines()[-1].replace(str(folder), "weights"),
            }
            ready += "is warm" in output
            if code in (0, 1) or "Traceback" in output or not re.search(cause, output):
                silent.append(name)
            consumed += _members(stage.kafka, fleet)
    return outcome(
        "corrupted-models",
        [
            least("damaged files", len(cases), stage.size(8, 3)),
            none("became ready", ready),
            none("joined the group", consumed),
            Check("ended without naming the cause", len(silent), "==", 0),
        ],
        {"ended": said, "silent": silent},
    )


def _members(bootstrap_servers: str, fleet: Fleet) -> int:
    """How many the workers' group has, or had."""
    client = AdminClient({"bootstrap.servers": bootstrap_servers})
    groups = client.list_consumer_groups(request_timeout=10).result().valid
    return sum(group.group_id == fleet.group for group in groups)


def _flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _fit_manifest(folder: Path, **changes: object) -> None:
    manifests.write(folder, msgspec.structs.replace(manifests.read(folder, NAME), **changes))


def _with_other_onnx(folder: Path, content: bytes) -> None:
    (folder / f"{NAME}.onnx").write_bytes(content)
    _fit_manifest(folder, onnx_sha256=manifests.sha256(content))


def _not_a_number(folder: Path) -> None:
    graph = onnx.load(folder / f"{NAME}.onnx")
    for tensor in graph.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and tensor.raw_data:
            tensor.raw_data = b"\x00\x00\xc0\x7f" * (len(tensor.raw_data) // 4)
    _with_other_onnx(folder, graph.SerializeToString())


DAMAGES: dict[str, tuple[Damage, str]] = {
    "one bit of the ONNX file": (
        lambda folder: _flip_a_bit(folder / f"{NAME}.onnx"),
        r"fashion-mnist\.onnx is not the file that was trained",
    ),
    "weights that are not a number": (_not_a_number, r"fashion-mnist\.onnx does not give probabilities"),
    "no manifest": (lambda folder: (folder / f"{NAME}.json").unlink(), r"fashion-mnist\.json"),
    "a manifest that is no JSON": (
        lambda folder: (folder / f"{NAME}.json").write_text("{"),
        r"fashion-mnist\.json",
    ),
    "nine labels": (
        lambda folder: _fit_manifest(folder, labels=manifests.read(folder, NAME).labels[:9]),
        r"gives 10 numbers for 9 labels|labels",
    ),
    "one bit of the detector": (
        lambda folder: _flip_a_bit(folder / f"{NAME}.npz"),
        r"fashion-mnist\.npz is not the file that was trained",
    ),
    "an ONNX file of garbage, its digest right": (
        lambda folder: _with_other_onnx(folder, b"not a model" * 100),
        r"cannot open .*fashion-mnist\.onnx",
    ),
    "a file cut in half": (
        lambda folder: (folder / f"{NAME}.onnx").write_bytes(
            (folder / f"{NAME}.onnx").read_bytes()[:100_000]
        ),
        r"fashion-mnist\.onnx is not the file that was trained",
    ),
}
