"""The client for asyncio against the gateway itself, with a worker that the test plays."""

import asyncio
from pathlib import Path

import httpx
import msgspec
import pytest

from messaging.contract import Agreement, ErrorCode, Failure, Reply, Request, ServedVersion, UnservedModel
from messaging.memory import MemoryBroker
from mlaas_client import AsyncClient, DeadlineExceeded, NotFound, Prediction, Refused
from tests.unit.gateways import LARGE, PNG, SAMPLES, SANDAL, SMALL, gateway, sandal
from tests.unit.jobbing import job_gateway

PATIENT = {"reply_timeout_ms": 60_000, "worker_silence_ms": 60_000}


def asking(http: httpx.AsyncClient, **more: object) -> AsyncClient:
    return AsyncClient("http://g", transport=http._transport, **more)  # type: ignore[arg-type]


@pytest.mark.anyio
async def test_a_prediction_has_what_the_gateway_says() -> None:
    async with gateway(sandal, **PATIENT) as http, asking(http) as its:
        found = await its.predict(SAMPLES / "sandal.png", top_k=1)
        raw = (await http.post("/predict?top_k=1", content=SANDAL, headers=PNG)).json()
    assert (found.label, found.confidence, found.probabilities) == ("Sandal", 0.8, {"Sandal": 0.8})
    assert found.raw.keys() == raw.keys()
    assert (found.sha256, found.model) == (raw["sha256"], "fashion-mnist")
    assert len(found.request_id) == 32


@pytest.mark.anyio
async def test_what_the_gateway_refuses_is_an_error_with_its_problem() -> None:
    async with gateway(sandal, **PATIENT) as http, asking(http) as its:
        with pytest.raises(Refused, match="not a picture in JPEG, PNG") as caught:
            await its.predict(b"rubbish")
    assert caught.value.problem["type"] == "urn:mlaas:problem:not-a-picture"
    assert caught.value.request_id == caught.value.problem["request_id"]


@pytest.mark.anyio
async def test_the_deadline_is_the_gateways_too() -> None:
    async with gateway(lambda _: None) as http, asking(http) as its:
        with pytest.raises(DeadlineExceeded, match=r"0\.\d+ s"):
            await its.predict(SANDAL, timeout_s=0.2)


@pytest.mark.anyio
async def test_a_submission_whose_answer_was_lost_is_one_job(tmp_path: Path) -> None:
    """The gateway answers, the connection breaks, and the second attempt's key finds the first job."""

    class Losing(httpx.AsyncBaseTransport):
        def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
            self.inner, self.lost = inner, 0

        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            response = await self.inner.handle_async_request(request)
            if not self.lost:
                self.lost += 1
                raise httpx.ReadError("lost", request=request)
            return response

    broker = MemoryBroker()
    async with job_gateway(None, tmp_path, broker) as http:
        async with AsyncClient("http://g", transport=Losing(http._transport)) as its:
            assert (await its.submit([SANDAL])).total == 1
        assert len(broker.subscribe("predict.jobs", "g").receive(10, 0.1)) == 1


@pytest.mark.anyio
async def test_of_many_the_bad_ones_have_the_workers_word() -> None:
    def work(request: Request) -> Reply:
        if request.body == SANDAL:
            return sandal(request)
        return Reply(sha256="", error=Failure(code=ErrorCode.INVALID_PICTURE, detail="broken"))

    broken = SANDAL + b"!"
    async with gateway(work, **PATIENT) as http, asking(http) as its:
        outcomes = await its.predict_many([SANDAL, broken, b"rubbish", *[SANDAL] * 50])
    kinds = [type(outcome) for outcome in outcomes]
    assert kinds == [Prediction, Refused, Refused, *[Prediction] * 50]
    assert "broken" in str(outcomes[1])


@pytest.mark.anyio
async def test_more_files_than_the_gateway_takes_at_once_are_sent_in_parts() -> None:
    async with gateway(sandal, max_batch_files=5, **PATIENT) as http, asking(http) as its:
        outcomes = await its.predict_many([SANDAL] * 40, concurrency=2)
    assert all(isinstance(outcome, Prediction) for outcome in outcomes)


@pytest.mark.anyio
async def test_many_pictures_wait_for_room_in_a_gateway_that_is_full() -> None:
    async with gateway(sandal, max_in_flight=2, **PATIENT) as http, asking(http) as its:
        outcomes = await its.predict_many([SANDAL] * 40, concurrency=4)
    assert all(isinstance(outcome, Prediction) for outcome in outcomes)


@pytest.mark.anyio
async def test_models_are_what_the_gateway_lists() -> None:
    async with gateway(sandal, **PATIENT) as http, asking(http) as its:
        small, large = await its.models()
    assert (small.name, small.default, small.accuracy) == ("fashion-mnist", True, 0.94)
    assert (large.default, len(large.labels)) == (False, 10)


@pytest.mark.anyio
async def test_a_model_has_its_versions_with_what_their_shadows_agreed_on() -> None:
    shadow = ServedVersion(version="2", shadow=Agreement(same=7, other=1), sha256="ab", problem="")
    served = [
        msgspec.structs.replace(SMALL, versions=[ServedVersion(version="1", share_percent=100), shadow])
    ]
    async with gateway(sandal, served=served, **PATIENT) as http, asking(http) as its:
        (model,) = await its.models()
    first, second = model.versions
    assert (first.version, first.share_percent, first.shadow) == ("1", 100, None)
    assert (second.version, second.share_percent, second.sha256) == ("2", 0, "ab")
    assert second.shadow == {"same": 7, "other": 1, "failed": 0, "skipped": 0}


@pytest.mark.anyio
async def test_a_model_that_cannot_be_served_says_why() -> None:
    broken = UnservedModel(name="flowers", versions=[ServedVersion(version="1", problem="no weights")])
    async with gateway(sandal, unserved=[broken], **PATIENT) as http, asking(http) as its:
        models = await its.models()
    assert [model.name for model in models if model.is_served] == [SMALL.name, LARGE.name]
    assert (models[-1].name, models[-1].ready, models[-1].versions[0].problem) == (
        "flowers",
        False,
        "no weights",
    )


@pytest.mark.anyio
async def test_an_unknown_model_is_not_found() -> None:
    def work(request: Request) -> Reply:
        return Reply(
            sha256="", error=Failure(code=ErrorCode.UNKNOWN_MODEL, detail=f"no model {request.model!r}")
        )

    async with gateway(work, **PATIENT) as http, asking(http) as its:
        with pytest.raises(NotFound, match="no model 'none'"):
            await its.predict(SANDAL, model="none")


@pytest.mark.anyio
async def test_a_call_that_is_given_up_ends_at_once() -> None:
    async with gateway(lambda _: None) as http, asking(http) as its:
        call = asyncio.create_task(its.predict(SANDAL))
        await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
