"""Pictures that kill or hang the model process, and model files that are damaged."""

import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import onnx
from confluent_kafka import OFFSET_BEGINNING, Consumer, Message, TopicPartition
from confluent_kafka.admin import AdminClient

from model import manifest as manifests
from tests.e2e.services import ROOT
from tests.faults.asking import Client, Verdict, in_turn, judge, longest_gap
from tests.faults.fleet import Fleet
from tests.faults.outcome import Check, Outcome, least, most, none, outcome, within_s
from tests.faults.stage import TIMEOUT_S, Picture, Stage, under_load
from tests.fragile_model import HANG, KILL

NAME = "fashion-mnist"
ONNX, MANIFEST, DETECTOR = "model.onnx", "model.yaml", "detector.npz"
PATIENCE_S = 5.0

Damage = Callable[[Path], object]


def poison_kill(stage: Stage) -> Outcome:
    """One of a thousand pictures kills the model process (SIGSEGV)."""
    client, pictures = Client(TIMEOUT_S), _with_one(stage, KILL)
    with stage.running(1, "fragile-model") as (fleet, gateway):
        under_load(client.drive(in_turn([gateway]), pictures, rate=50))
        restarts = fleet.metric("worker-1", r"mlaas_worker_restarts_total\{role=\"model\"\}")
        buried = _buried(stage, fleet, pictures)
    judged = judge(client.entries)
    return outcome(
        [
            *_one_error(judged, len(pictures), (200,)),
            *buried,
            most("model processes restarted", restarts, 1),
            within_s("longest pause", longest_gap(client.answered_at), 3.0),
        ],
        judged.numbers(),
    )


def hang(stage: Stage) -> Outcome:
    """A prediction that never ends on the only worker; the gateway refuses requests meanwhile."""
    limit_s = stage.size(10, 3)
    client, pictures = Client(TIMEOUT_S), _with_one(stage, HANG)
    seen: dict[int, float] = {}
    timeout = {"MLAAS_WORKER__MODEL_TIMEOUT_MS": str(limit_s * 1000)}
    with stage.running(1, "fragile-model", **timeout) as (fleet, gateway):

        def watch_model_processes(over: threading.Event) -> None:
            while not over.wait(0.1):
                for pid, command in fleet.pids("worker-1").items():
                    if "tests.fragile_model" in command:
                        seen.setdefault(pid, time.monotonic())

        under_load(client.drive(in_turn([gateway]), pictures, rate=50), watch_model_processes)
        buried = _buried(stage, fleet, pictures)
    judged = judge(client.entries)
    hung_at = next(entry.due for entry in client.entries if entry.status == 500)
    replaced_s = min((at - hung_at for at in seen.values() if at > hung_at), default=TIMEOUT_S)
    return outcome(
        [
            *_one_error(judged, len(pictures), (200, 503)),
            *buried,
            within_s("model process replaced after", replaced_s, limit_s + 3),
        ],
        judged.numbers() | {"limit_s": limit_s},
    )


def _with_one(stage: Stage, mark: bytes) -> list[Picture]:
    count = stage.size(1_000, 200)
    return [stage.pictures(number, mark if number == count // 2 else b"") for number in range(count)]


def _one_error(judged: Verdict, count: int, others: tuple[int, ...]) -> list[Check]:
    return [
        none("lost", judged.lost),
        none("wrong", judged.wrong),
        least(
            f"answered {' or '.join(map(str, others))}",
            sum(judged.statuses.get(status, 0) for status in others),
            count - 1,
        ),
        least("answered 500", judged.statuses.get(500, 0), 1),
    ]


def _buried(stage: Stage, fleet: Fleet, pictures: list[Picture]) -> list[Check]:
    letters = dead_letters(stage.kafka, fleet.topics["dead_letters"])
    culprit = pictures[len(pictures) // 2]
    found = [letter for letter in letters if letter.value() == culprit.content]
    named = [each for each in found if dict(each.headers() or []).get("kafka_dlt-exception-message")]
    return [
        Check("dead letters", len(letters), "==", 1),
        Check("of them the picture, with its reason", len(named), "==", 1),
    ]


def dead_letters(bootstrap_servers: str, topic: str) -> list[Message]:
    """All messages that are in the topic within some seconds."""
    consumer = Consumer(
        {"bootstrap.servers": bootstrap_servers, "group.id": "nobody", "enable.auto.commit": False}
    )
    try:
        partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in partitions])
        found: list[Message] = []
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            found += [each for each in consumer.consume(100, timeout=0.5) if each.error() is None]
        return found
    finally:
        consumer.close()


def corrupted_models(stage: Stage) -> Outcome:
    """A worker with a damaged model is never ready, consumes nothing, and names the cause."""
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
        [
            least("damaged files", len(cases), stage.size(8, 3)),
            none("became ready", ready),
            none("joined the group", consumed),
            Check("ended without naming the cause", len(silent), "==", 0),
        ],
        {"ended": said, "silent": silent},
    )


def _members(bootstrap_servers: str, fleet: Fleet) -> int:
    """The number of groups of this name: one if a worker has joined."""
    admin = AdminClient({"bootstrap.servers": bootstrap_servers})
    groups = admin.list_consumer_groups(request_timeout=10).result().valid
    return sum(group.group_id == fleet.group for group in groups)


def _flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _in(weights_dir: Path) -> Path:
    return manifests.folder(weights_dir, NAME)


def _fit_manifest(weights_dir: Path, **changes: object) -> None:
    folder = _in(weights_dir)
    manifests.write(folder, msgspec.structs.replace(manifests.read(folder), **changes))


def _with_other_onnx(weights_dir: Path, content: bytes) -> None:
    (_in(weights_dir) / ONNX).write_bytes(content)
    export = manifests.read(_in(weights_dir)).onnx
    assert export is not None
    _fit_manifest(weights_dir, onnx=msgspec.structs.replace(export, sha256=manifests.sha256(content)))


def _not_a_number(weights_dir: Path) -> None:
    graph = onnx.load(_in(weights_dir) / ONNX)
    for tensor in graph.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and tensor.raw_data:
            tensor.raw_data = b"\x00\x00\xc0\x7f" * (len(tensor.raw_data) // 4)
    _with_other_onnx(weights_dir, graph.SerializeToString())


_CHANGED = " is not the file that its manifest names"

DAMAGES: dict[str, tuple[Damage, str]] = {
    "one bit of the ONNX file": (lambda at: _flip_a_bit(_in(at) / ONNX), re.escape(ONNX) + _CHANGED),
    "weights that are not a number": (_not_a_number, re.escape(ONNX) + " does not give probabilities"),
    "no manifest": (lambda at: (_in(at) / MANIFEST).unlink(), "has no .*" + re.escape(MANIFEST)),
    "a manifest that is no YAML": (
        lambda at: (_in(at) / MANIFEST).write_text("{"),
        re.escape(MANIFEST) + " is not the manifest of a model",
    ),
    "nine labels": (
        lambda at: _fit_manifest(at, labels=manifests.read(_in(at)).labels[:9], golden=()),
        "gives 10 numbers for 9 labels",
    ),
    "one bit of the detector": (lambda at: _flip_a_bit(_in(at) / DETECTOR), re.escape(DETECTOR) + _CHANGED),
    "an ONNX file of garbage, its digest right": (
        lambda at: _with_other_onnx(at, b"not a model" * 100),
        re.escape(ONNX) + " is damaged, or not an ONNX file",
    ),
    "a file cut in half": (
        lambda at: (_in(at) / ONNX).write_bytes((_in(at) / ONNX).read_bytes()[:100_000]),
        re.escape(ONNX) + _CHANGED,
    ),
}
