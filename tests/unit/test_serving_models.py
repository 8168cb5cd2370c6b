"""Several models, modes, and what comes back besides the probabilities, through a whole worker."""

import hashlib
import re

import msgspec
import numpy as np
import pytest

from gateway.answer import grey_png
from messaging.broker import Message
from messaging.contract import PING, ErrorCode, ServedModel, ServedVersion
from model import ModelSettings
from model import manifest as manifests
from model.classifier import UNLIKE_CLOTHING
from model.preprocessing import prepare
from tests import second_model
from tests.unit.workers import SANDAL, SETTINGS, Running, label, worker


@pytest.fixture(scope="module")
def two_models(tmp_path_factory: pytest.TempPathFactory) -> ModelSettings:
    """The shipped model, and one that takes a sandal for a coat."""
    weights_dir = tmp_path_factory.mktemp("weights")
    second_model.copy_shipped(weights_dir)
    second_model.add_mirrored(weights_dir, "mirrored")
    names = ("fashion-mnist", "mirrored")
    return msgspec.structs.replace(SETTINGS.model, names=names, weights_dir=str(weights_dir))


def test_a_ping_is_answered_with_all_models_the_first_is_the_default(
    two_models: ModelSettings,
) -> None:
    with worker(model=two_models) as running:
        running.send("1", b"", content_type=PING)
        reply = running.replies(1)["1"]
    assert (reply.model, reply.error, reply.probabilities) == ("fashion-mnist", None, {})
    manifest = manifests.read(second_model.SHIPPED)
    assert reply.version == manifest.version
    small, mirrored = reply.models
    sha256 = hashlib.sha256((second_model.SHIPPED / "model.onnx").read_bytes()).hexdigest()
    assert small == ServedModel(
        name="fashion-mnist",
        version=manifest.version,
        default=True,
        runtime="onnx",
        labels=list(manifest.labels),
        input=small.input,
        output_size=len(manifest.labels),
        sha256=sha256,
        accuracy=manifest.accuracy,
        versions=[
            ServedVersion(
                version=manifest.version, share_percent=100, sha256=sha256, accuracy=manifest.accuracy
            )
        ],
    )
    assert small.input.startswith("28 x 28 grey")
    assert (mirrored.name, mirrored.default, mirrored.sha256 == small.sha256) == ("mirrored", False, False)


def test_each_picture_of_a_batch_is_answered_by_the_model_that_it_is_for(two_models: ModelSettings) -> None:
    names = ["", "mirrored", "fashion-mnist", "mirrored", "mirrored", ""]
    broken = 3

    def send(running: Running) -> None:
        for number, name in enumerate(names):
            running.send(str(number), SANDAL[:60] if number == broken else SANDAL, model=name)

    with worker(before=send, model=two_models) as running:
        replies = running.replies(len(names))
    assert [number for number in range(len(names)) if replies[str(number)].error] == [broken]
    for number, name in enumerate(names):
        reply = replies[str(number)]
        assert reply.model == (name or "fashion-mnist")
        if number != broken:
            assert label(reply) == ("Coat" if name == "mirrored" else "Sandal")
            assert reply.timings is not None
            assert reply.timings.batch_size == len(names)
            assert reply.timings.infer_ms > 0
    assert {replies["1"].version, replies["3"].version} == {"2.0.0"}


def test_who_asks_for_an_unknown_model_is_told_the_known_ones(two_models: ModelSettings) -> None:
    with worker(model=two_models) as running:
        running.send("1", SANDAL, model="other")
        error = running.replies(1)["1"].error
    assert error is not None
    assert error.code is ErrorCode.UNKNOWN_MODEL
    assert re.search(r"served: fashion-mnist \S+, mirrored 2\.0\.0$", error.detail)


@pytest.mark.parametrize("header", ["mode", "explain"])
def test_a_stranger_who_asks_for_what_there_is_not_gets_an_error(header: str) -> None:
    with worker() as running:
        headers = {"correlation_id": "1", "reply_to": running.inbox.address, header: "sketch"}
        running.broker.publish(SETTINGS.topics.requests, Message(SANDAL, headers)).result()
        error = running.replies(1)["1"].error
    assert error is not None
    assert error.code is ErrorCode.INVALID_REQUEST
    assert "sketch" in error.detail


def test_the_mode_that_is_asked_for_is_used_and_what_the_model_saw_comes_back() -> None:
    with worker() as running:
        running.send("as it is", SANDAL)
        for mode in ("raw28", "product"):
            running.send(mode, SANDAL, mode=mode, explain="input")
        replies = running.replies(3)
    assert (replies["as it is"].mode, replies["as it is"].input) == ("raw28", None)
    for mode in ("raw28", "product"):
        assert replies[mode].mode == mode
        assert replies[mode].input == prepare(SANDAL, mode=mode, max_pixels=1000).pixels.tobytes()
    assert replies["raw28"].input != replies["product"].input


def test_a_picture_of_nothing_that_is_worn_is_answered_with_a_warning() -> None:
    noise = np.random.default_rng(1).integers(0, 256, (28, 28), dtype=np.uint8)
    with worker() as running:
        running.send("noise", grey_png(noise.tobytes(), 28))
        running.send("sandal", SANDAL)
        replies = running.replies(2)
    noise_, sandal = replies["noise"], replies["sandal"]
    assert noise_.error is None
    assert noise_.in_distribution is False
    assert noise_.ood_score is not None
    assert sandal.ood_score is not None
    assert noise_.ood_score > 1 >= sandal.ood_score
    assert noise_.warnings == [UNLIKE_CLOTHING]
    assert (sandal.in_distribution, sandal.warnings) == (True, [])


def test_what_is_wrong_with_a_picture_comes_back_as_a_warning() -> None:
    with worker() as running:
        running.send("1", grey_png(bytes(40 * 40), 40), mode="product")
        reply = running.replies(1)["1"]
    assert "picture very small" in reply.warnings
    assert "nothing but background" in reply.warnings
