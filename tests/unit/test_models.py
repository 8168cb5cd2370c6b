"""GET /models and GET /models/{name}: what the workers say of themselves, over a broker in memory."""

import json
from typing import Any

import msgspec
import pytest

from gateway.errors import UnknownModel
from gateway.presence import Catalogue, KnownModel, Presence
from messaging.contract import Agreement, Reply, Request, ServedModel, ServedVersion, UnservedModel
from tests.unit.gateways import LARGE, SANDAL, SMALL, TOPICS, gateway, gateway_settings, problem, sandal

pytestmark = pytest.mark.anyio


def as_json(model: ServedModel) -> Any:
    """As a gateway lists it while it is ready."""
    return msgspec.json.decode(msgspec.json.encode(model)) | {"queue": "shared", "ready": True}


async def test_the_models_are_those_that_the_worker_describes() -> None:
    async with gateway(sandal) as http:
        listed = await http.get("/models")
        one = await http.get("/models/fashion-mnist-large")
    assert listed.status_code == one.status_code == 200
    assert listed.headers["content-type"] == one.headers["content-type"] == "application/json"
    assert listed.json() == {"models": [as_json(SMALL), as_json(LARGE)]}
    assert one.json() == as_json(LARGE)
    assert list(one.json()) == [
        "name", "version", "default", "runtime", "labels",
        "kind", "input", "shape", "dtype", "output", "output_size", "sha256", "accuracy", "versions",
        "queue", "ready",
    ]  # fmt: skip


BROKEN = UnservedModel(
    name="flowers",
    versions=[
        ServedVersion(version="1.1.0", problem="flowers/1.1.0/model.onnx cannot be read"),
        ServedVersion(version="1.0.0", problem="flowers/1.0.0/model.yaml names no file"),
    ],
)


async def test_a_model_that_cannot_be_served_is_listed_with_the_reasons_and_is_not_ready() -> None:
    async with gateway(sandal, unserved=[BROKEN]) as http:
        served, other, its = (await http.get("/models")).json()["models"]
        one = (await http.get("/models/flowers")).json()
        index = (await http.post("/v2/repository/index")).json()
        refused = [(await http.get(f"/v2/models/flowers{of}")).json() for of in ("", "/versions/1.0.0")]
        unknown = (await http.get("/v2/models/flowers/versions/3")).json()
    assert (served, other) == (as_json(SMALL), as_json(LARGE))
    assert one == its
    assert (its["name"], its["version"], its["ready"], its["default"]) == ("flowers", "1.1.0", False, False)
    assert {each["version"]: (each["share_percent"], each["problem"]) for each in its["versions"]} == {
        each.version: (0, each.problem) for each in BROKEN.versions
    }
    assert not any(its[name] for name in ("kind", "shape", "dtype", "output", "labels", "sha256"))
    assert [entry for entry in index if entry["name"] == "flowers"] == [
        {"name": "flowers", "version": each.version, "state": "UNAVAILABLE", "reason": each.problem}
        for each in BROKEN.versions
    ]
    assert refused == [
        {"error": f"flowers {each.version} cannot be served: {each.problem}"} for each in BROKEN.versions
    ]
    assert unknown["error"].startswith("no model 'flowers' of version '3'; served: fashion-mnist 1,")


async def test_a_model_is_listed_as_broken_only_while_workers_say_so_and_none_serves_it() -> None:
    presence = Presence(TOPICS, gateway_settings())
    catalogue = presence.channel_of("").catalogue
    catalogue.heard([SMALL], 0, [BROKEN])
    catalogue.heard([], 1)
    assert [model.name for model in presence.listed(1)] == ["fashion-mnist", "flowers"]
    assert [model.name for model in presence.models(1)] == ["fashion-mnist"]
    catalogue.heard([SMALL, msgspec.structs.replace(LARGE, name="flowers")], 2, [BROKEN])
    assert [(model.name, model.version) for model in presence.listed(2)] == [
        ("fashion-mnist", "1"),
        ("flowers", "1"),
    ]
    catalogue.heard([SMALL], 3)
    assert [model.name for model in presence.listed(3)] == ["fashion-mnist"]


async def test_an_unknown_model_is_a_404_that_names_those_that_there_are() -> None:
    async with gateway(sandal) as http:
        document = problem(await http.get("/models/none"), 404)
    assert document["type"] == "urn:mlaas:problem:unknown-model"
    assert "'none'" in str(document["detail"])
    assert "fashion-mnist 1, fashion-mnist-large 1" in str(document["detail"])


@pytest.mark.parametrize("path", ["/models", "/models/fashion-mnist"])
async def test_while_no_worker_was_heard_it_is_a_503_that_says_when_to_come_back(path: str) -> None:
    async with gateway(None) as http:
        response = await http.get(path)
    problem(response, 503)
    assert int(response.headers["retry-after"]) > 0


async def test_of_an_older_worker_nothing_is_known_and_its_answers_are_as_good() -> None:
    async with gateway(sandal, served=()) as http:
        assert "older version" in str(problem(await http.get("/models"), 503)["detail"])
        assert (await http.post("/predict", files={"file": SANDAL})).status_code == 200


@pytest.mark.parametrize("path", ["/models", "/models/fashion-mnist"])
async def test_who_has_it_already_is_told_so(path: str) -> None:
    async with gateway(sandal) as http:
        first = await http.get(path)
        etag = first.headers["etag"]
        for header in (etag, f"W/{etag}", f'"other", {etag}', "*"):
            unchanged = await http.get(path, headers={"If-None-Match": header})
            assert (unchanged.status_code, unchanged.content) == (304, b""), header
            assert unchanged.headers["etag"] == etag
        for header in ('"other"', etag.strip('"')):
            assert (await http.get(path, headers={"If-None-Match": header})).content == first.content
        other = await http.get("/models/fashion-mnist-large")
    assert etag.startswith('"')
    assert other.headers["etag"] != etag


@pytest.mark.parametrize("path", ["/models", "/models/fashion-mnist"])
async def test_head_is_get_without_the_body(path: str) -> None:
    async with gateway(sandal) as http:
        get, head = await http.get(path), await http.head(path)
        unchanged = await http.head(path, headers={"If-None-Match": get.headers["etag"]})
        missing = await http.head("/models/none")
    assert (head.status_code, head.content) == (200, b"")
    for name in ("etag", "content-type", "content-length", "cache-control"):
        assert head.headers[name] == get.headers[name]
    assert (unchanged.status_code, missing.status_code) == (304, 404)


async def test_a_new_model_is_heard_of_though_pictures_come_without_a_pause() -> None:
    served = [SMALL]

    def answering(request: Request) -> Reply:
        served[:] = [LARGE]
        return sandal(request)

    async with gateway(answering, served=served, ping_interval_ms=10, worker_silence_ms=300) as http:
        assert (await http.get("/models")).json()["models"][0]["name"] == "fashion-mnist"
        picture = {"file": SANDAL}
        for _ in range(10_000):
            assert (await http.post("/predict", files=picture)).status_code == 200
            if (await http.get("/models")).json()["models"][0]["name"] == "fashion-mnist-large":
                return
    raise AssertionError("the new model was never heard of")


def test_what_was_heard_stays_known_when_another_worker_does_not_say() -> None:
    catalogue = Catalogue()
    catalogue.heard([SMALL], 1.0)
    catalogue.heard([], 2.0)
    assert list(catalogue.models) == [SMALL]
    assert catalogue.age_s(5.0) == 3.0


@pytest.mark.parametrize(("name", "version"), [("fashion-mnist", ""), ("fashion-mnist", "1")])
def test_a_model_is_found_by_name_and_version(name: str, version: str) -> None:
    presence = Presence(TOPICS, gateway_settings())
    presence.channel_of(name).catalogue.heard([LARGE, SMALL], 0)
    assert presence.named(name, version, 0).name == SMALL.name


def test_each_version_that_answers_has_its_digest_and_accuracy_and_no_other_is_known() -> None:
    first = ServedVersion(version="1", share_percent=90, sha256=64 * "a", accuracy=0.94)
    canary = ServedVersion(version="2", share_percent=10, sha256=64 * "b", accuracy=0.95)
    shadow = ServedVersion(version="3", shadow=Agreement(same=1))
    presence = Presence(TOPICS, gateway_settings())
    its = msgspec.structs.replace(SMALL, versions=[first, canary, shadow])
    presence.channel_of("fashion-mnist").catalogue.heard([its], 0)
    assert presence.named("fashion-mnist", "", 0).version == "1"
    found = presence.named("fashion-mnist", "2", 0)
    assert (found.version, found.sha256, found.accuracy) == ("2", 64 * "b", 0.95)
    with pytest.raises(UnknownModel, match=r"served: fashion-mnist 1, fashion-mnist 2$"):
        presence.named("fashion-mnist", "3", 0)


def test_another_version_is_unknown() -> None:
    presence = Presence(TOPICS, gateway_settings())
    presence.channel_of("").catalogue.heard([SMALL], 0)
    with pytest.raises(UnknownModel, match=r"'fashion-mnist' of version '2'; served: fashion-mnist 1$"):
        presence.named("fashion-mnist", "2", 0)


async def test_the_documentation_has_an_example_of_each_answer() -> None:
    async with gateway(sandal) as http:
        document = (await http.get("/openapi.json")).json()
        answer = (await http.get("/models/fashion-mnist")).json()
    described = document["paths"]["/models/{name}"]["get"]["responses"]["200"]["content"]["application/json"]
    example, schema = described["example"], document["components"]["schemas"]["KnownModel"]
    assert set(example) == set(answer) == set(schema["properties"])
    msgspec.convert(example, KnownModel)
    for path, statuses in {
        "/models": {"200", "304", "429", "500", "503", "504"},
        "/models/{name}": {"200", "304", "404", "429", "500", "503", "504"},
    }.items():
        assert set(document["paths"][path]["get"]["responses"]) == statuses
        assert "head" not in document["paths"][path]
        missing = document["paths"][path]["get"]["responses"]["503"]["content"]
        assert "unavailable" in json.dumps(missing["application/problem+json"]["examples"])
