"""What HTTP expects of every answer: methods, ids, timing, caching, other origins."""

import re
from concurrent.futures import Future
from pathlib import Path

import httpx
import pytest

from messaging.broker import Message
from messaging.contract import Reply, Request
from messaging.memory import MemoryBroker
from tests.unit.gateways import PNG, SANDAL, gateway, problem, sandal
from tests.unit.jobbing import job_gateway

pytestmark = pytest.mark.anyio

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
ORIGIN = "https://shop.example"


class Defective(MemoryBroker):
    def publish(self, address: str, message: Message, *, gather: bool = False) -> Future[None]:
        if message.headers.get("content_type") == "image/png":
            raise RuntimeError("secret")
        return super().publish(address, message)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/health/live", 200),
        ("GET", "/docs", 200),
        ("GET", "/docs/swagger/swagger-ui.css", 200),
        ("GET", "/models", 200),
        ("GET", "/nothing", 404),
        ("GET", "/predict", 405),
        ("OPTIONS", "/predict", 204),
        ("GET", "/", 200),
        ("GET", "/v2/models/none", 404),
        ("POST", "/predict", 500),
    ],
)
async def test_every_answer_has_an_id_a_time_and_is_not_to_be_sniffed(
    method: str, path: str, status: int
) -> None:
    async with gateway(sandal, Defective()) as http:
        response = await http.request(method, path, content=SANDAL if method == "POST" else b"", headers=PNG)
    assert response.status_code == status
    assert re.fullmatch("[0-9a-f]{32}", response.headers["x-request-id"])
    assert re.fullmatch(r"total;dur=\d+\.\d{3}", response.headers["server-timing"])
    assert response.headers.get_list("x-content-type-options") == ["nosniff"]


async def test_a_prediction_has_its_own_times_and_only_those() -> None:
    async with gateway(sandal) as http:
        response = await http.post("/predict", content=SANDAL, headers=PNG)
    (timing,) = response.headers.get_list("server-timing")
    assert "infer;dur=" in timing and "total;dur=" in timing


async def test_a_valid_trace_goes_to_the_worker_and_comes_back(tmp_path: Path) -> None:
    traces: list[str] = []

    def noting(request: Request) -> Reply:
        traces.append(request.traceparent)
        return sandal(request)

    v2 = {"inputs": [{"name": "image", "datatype": "UINT8", "shape": [1, 784], "data": 784 * [0]}]}
    trace, form = {"traceparent": TRACE}, {"file": SANDAL}
    async with job_gateway(noting, tmp_path) as http:
        answers = [
            await http.post("/predict", content=SANDAL, headers={**PNG, **trace}),
            await http.post("/predict/batch", files=form, headers=trace),
            await http.post("/v2/models/fashion-mnist/infer", json=v2, headers=trace),
            await http.post("/jobs", files=form, headers=trace),
            await http.get("/nothing", headers=trace),
        ]
        await http.get(answers[3].headers["location"], params={"wait": "20s"})
        without = await http.post("/predict", content=SANDAL, headers=PNG)
    assert traces == [*(4 * [TRACE]), ""]
    assert [answer.headers["traceparent"] for answer in answers] == 5 * [TRACE]
    assert "traceparent" not in without.headers


@pytest.mark.parametrize(
    "trace",
    [
        "", "x", TRACE[:-1], TRACE + "0", TRACE + "-00", TRACE.upper(), "ff" + TRACE[2:],
        TRACE.replace("-", "_"),
        f"00-{'0' * 32}-b7ad6b7169203331-01", f"00-0af7651916cd43dd8448eb211c80319c-{'0' * 16}-01",
        TRACE.replace("0a", "g0"),
    ],
)  # fmt: skip
async def test_a_trace_that_is_not_valid_is_left_out(trace: str) -> None:
    traces: list[str] = []

    def noting(request: Request) -> Reply:
        traces.append(request.traceparent)
        return sandal(request)

    async with gateway(noting) as http:
        response = await http.post("/predict", content=SANDAL, headers={**PNG, "traceparent": trace})
    assert "traceparent" not in response.headers
    assert traces == [""]


async def test_two_traces_are_none() -> None:
    async with gateway(sandal) as http:
        response = await http.get("/models", headers=[("traceparent", TRACE), ("traceparent", TRACE)])
    assert "traceparent" not in response.headers


@pytest.mark.parametrize("given", ["a" * 65, "a b", "a\tb", "<script>", "é", "", "a;b", "\x1b[31m"])
async def test_a_request_id_that_could_not_be_logged_is_replaced(given: str) -> None:
    async with gateway(None) as http:
        response = await http.get("/health/live", headers={"X-Request-ID": given.encode()})
    assert re.fullmatch("[0-9a-f]{32}", response.headers["x-request-id"])


PATHS = {
    "/predict": "POST, OPTIONS",
    "/predict/batch": "POST, OPTIONS",
    "/models": "GET, HEAD, OPTIONS",
    "/models/fashion-mnist": "GET, HEAD, OPTIONS",
    "/v2": "GET, HEAD, OPTIONS",
    "/v2/models/fashion-mnist": "GET, HEAD, OPTIONS",
    "/v2/models/fashion-mnist/infer": "POST, OPTIONS",
    "/health/live": "GET, HEAD, OPTIONS",
    "/metrics": "GET, HEAD, OPTIONS",
    "/openapi.json": "GET, HEAD, OPTIONS",
    "/docs": "GET, HEAD, OPTIONS",
    "/docs/swagger/swagger-ui.css": "GET, HEAD, OPTIONS",
    "/": "GET, HEAD, OPTIONS",
}


@pytest.mark.parametrize(("path", "allowed"), PATHS.items(), ids=PATHS)
async def test_each_path_says_which_methods_it_has(path: str, allowed: str) -> None:
    async with gateway(sandal) as http:
        options = await http.options(path)
        wrong = await http.request("PUT", path)
        head, get = await http.head(path), await http.get(path)
    assert (options.status_code, options.content, options.headers["allow"]) == (204, b"", allowed)
    assert (wrong.status_code, wrong.headers["allow"]) == (405, allowed)
    expected = 405 if "GET" not in allowed else 200
    assert (head.status_code, get.status_code, head.content) == (expected, expected, b"")
    assert set(head.headers) == set(get.headers)
    assert head.headers.get("content-type") == get.headers.get("content-type")


async def test_what_is_not_there_has_no_methods() -> None:
    async with gateway(None) as http:
        problem(await http.options("/nothing"), 404)
        assert (await http.head("/nothing")).status_code == 404


async def test_the_documentation_can_be_asked_for_again() -> None:
    async with gateway(None) as http:
        first = await http.get("/openapi.json")
        again = await http.get("/openapi.json", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


async def test_other_origins_learn_nothing_unless_they_are_listed() -> None:
    asking = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST"}
    async with gateway(sandal) as http:
        off = [await http.options("/predict", headers=asking), await http.get("/models", headers=asking)]
    async with gateway(sandal, cors_allowed_origins=("https://other.example",)) as http:
        foreign = [await http.options("/predict", headers=asking), await http.get("/models", headers=asking)]
    for response in (*off, *foreign):
        assert "access-control-allow-origin" not in response.headers
    assert [response.status_code for response in (*off, *foreign)] == [204, 200, 400, 200]


async def test_a_listed_origin_may_send_a_picture_with_a_key_and_read_what_comes_with_the_answer() -> None:
    wanted = "content-type, x-api-key, idempotency-key"
    asking = {
        "Origin": ORIGIN,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": wanted,
    }
    async with gateway(sandal, Defective(), cors_allowed_origins=(ORIGIN,)) as http:
        preflight = await http.options("/predict", headers=asking)
        answer = await http.get("/models", headers={"Origin": ORIGIN})
        failed = await http.post("/predict", content=SANDAL, headers={**PNG, "Origin": ORIGIN})
    assert preflight.status_code == 200
    assert "POST" in preflight.headers["access-control-allow-methods"]
    allowed = preflight.headers["access-control-allow-headers"].lower().split(", ")
    assert set(wanted.split(", ")) <= set(allowed)
    assert failed.status_code == 500
    for response in (preflight, answer, failed):
        assert response.headers["access-control-allow-origin"] == ORIGIN
        assert "Origin" in response.headers["vary"]
    assert {"X-Request-ID", "Server-Timing", "Retry-After", "ETag", "Location"} <= exposed(answer)


def exposed(response: httpx.Response) -> set[str]:
    return set(response.headers["access-control-expose-headers"].split(", "))


BODIES = {
    "/predict": (SANDAL, "image/png"),
    "/predict/batch": (b"", "multipart/form-data; boundary=b"),
    "/jobs": (SANDAL, "image/png"),
    "/v2/models/fashion-mnist/infer": (b"{}", "application/json"),
}


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("coding", ["gzip", "Br", "identity, deflate", "x-gzip", "zstd", "aes128gcm"])
async def test_a_compressed_body_is_refused_alike_everywhere(tmp_path: Path, path: str, coding: str) -> None:
    body, kind = BODIES[path]
    headers = {"Content-Type": kind, "Content-Encoding": coding}
    async with job_gateway(sandal, tmp_path) as http:
        response = await http.post(path, content=body, headers=headers)
    assert response.status_code == 415
    assert response.headers["accept-encoding"] == "identity"
    assert "Content-Encoding" in response.text


@pytest.mark.parametrize("coding", ["identity", "Identity", "", " IDENTITY , identity"])
async def test_a_body_that_says_it_is_as_it_is_is_read(coding: str) -> None:
    headers = {**PNG, "Content-Encoding": coding}
    async with gateway(sandal) as http:
        assert (await http.post("/predict", content=SANDAL, headers=headers)).status_code == 200


@pytest.mark.parametrize("path", ["/predict/", "/models/", "/docs/swagger", "/predict//", "/nothing/"])
async def test_nobody_is_sent_to_a_host_that_a_request_named(path: str) -> None:
    async with gateway(sandal) as http:
        for method in ("GET", "POST"):
            response = await http.request(method, path, headers={"Host": "attacker.example"})
            assert "location" not in response.headers
            assert "attacker" not in response.text
            assert response.status_code in (404, 405)


async def test_a_path_that_does_not_exist_is_said_with_where_all_are_listed() -> None:
    async with gateway(sandal) as http:
        for path in ("/nope", "/nope/", "/predict/picture.png"):
            said = problem(await http.get(path), 404)["detail"]
            assert said == f"{path} does not exist; /docs lists every call"


async def test_a_slash_too_many_is_said_to_be_one() -> None:
    async with gateway(sandal) as http:
        said = problem(await http.post("/predict/", content=SANDAL, headers=PNG), 404)["detail"]
    assert said == "/predict/ does not exist; use /predict, without a trailing slash"
