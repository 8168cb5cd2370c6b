"""A gateway that wants API keys, over a broker in memory."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from gateway.api_keys import ApiKeys, KeyFile, KeyFileError, digest_of
from gateway.errors import RateLimited
from gateway.metrics import GatewayMetrics
from gateway.middleware import owner_of
from tests.unit.gateways import PNG, SANDAL, gateway, problem, sandal

pytestmark = pytest.mark.anyio

KEY = "mlaas_phone"
WITH_KEY = {**PNG, "X-API-Key": KEY}


@pytest.fixture
def keys(tmp_path: Path) -> str:
    path = tmp_path / "keys"
    path.write_text(f"phone {digest_of(KEY)}\nshop {digest_of('mlaas_shop')} 0.05 2\n")
    return str(path)


@pytest.mark.parametrize(
    "headers",
    [
        {"X-API-Key": KEY},
        {"Authorization": f"Bearer {KEY}"},
        {"Authorization": f"bearer  {KEY} "},
        {"X-API-Key": KEY, "Authorization": f"Bearer {KEY}"},
        {"X-API-Key": KEY, "Authorization": "Basic dTpw"},
    ],
)
async def test_with_a_key_the_picture_is_answered(keys: str, headers: dict[str, str]) -> None:
    async with gateway(sandal, api_keys_file=keys) as http:
        response = await http.post("/predict", content=SANDAL, headers={**PNG, **headers})
    assert response.json()["label"] == "Sandal"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-API-Key": ""},
        {"X-API-Key": KEY[:-1]},
        {"X-API-Key": KEY + "x"},
        {"X-API-Key": digest_of(KEY)},
        {"X-API-Key": "phone"},
        {"X-API-Key": b"\xf0\x9f\x94\x91"},
        {"X-API-Key": "k" * 20_000},
        {"Authorization": KEY},
        {"Authorization": "Bearer"},
        {"Authorization": f"Basic {KEY}"},
        {"X-API-Key": KEY, "Authorization": "Bearer other"},
        {"Cookie": f"X-API-Key={KEY}"},
    ],
)
async def test_without_a_key_or_with_a_wrong_one_it_is_a_401(keys: str, headers: dict[str, str]) -> None:
    async with gateway(sandal, api_keys_file=keys) as http:
        response = await http.post("/predict", content=SANDAL, headers={**PNG, **headers})
        in_the_query = await http.post("/predict", params={"api_key": KEY}, content=SANDAL, headers=PNG)
    document = problem(response, 401)
    assert document["type"] == "urn:mlaas:problem:unauthorized"
    assert response.headers["www-authenticate"] == "Bearer"
    assert KEY not in response.text
    problem(in_the_query, 401)


async def test_two_different_keys_are_a_401_also_when_both_are_right(keys: str) -> None:
    headers = [("X-API-Key", KEY), ("X-API-Key", "mlaas_shop")]
    async with gateway(sandal, api_keys_file=keys) as http:
        assert "several" in str(problem(await http.get("/models", headers=headers), 401)["detail"])


async def test_nothing_of_the_body_is_read_before_the_key_is(keys: str) -> None:
    read = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal read
        while read < 1_000_000:
            read += 1_000
            yield bytes(1_000)

    async with gateway(sandal, api_keys_file=keys) as http:
        problem(await http.post("/predict", content=body(), headers=PNG), 401)
    assert read == 0


OPEN = [
    "/", "/docs", "/docs/docs.js", "/docs/swagger/swagger-ui.css", "/openapi.json",
    "/health/live", "/health/ready", "/metrics", "/v2/health/live", "/v2/health/ready",
]  # fmt: skip


@pytest.mark.parametrize("path", OPEN)
async def test_probes_metrics_and_the_documentation_are_open(keys: str, path: str) -> None:
    async with gateway(sandal, api_keys_file=keys) as http:
        assert (await http.get(path)).status_code in (200, 307)


@pytest.mark.parametrize(
    "path",
    [
        "/models", "/models/fashion-mnist", "/predict", "/predict/", "/predict/batch", "/nothing", "/jobs/1",
        "//health/live", "/HEALTH/live", "/health", "/health/nothing", "/v2/health/live/", "/docs/nothing",
        "/docsx", "/metrics/",
    ],
)  # fmt: skip
async def test_every_other_path_wants_a_key_whether_it_exists_or_not(keys: str, path: str) -> None:
    async with gateway(sandal, api_keys_file=keys) as http:
        for method in ("GET", "HEAD", "POST", "DELETE", "BREW"):
            assert (await http.request(method, f"http://g{path}")).status_code == 401


async def test_the_files_of_the_page_are_open_as_it_is(keys: str) -> None:
    async with gateway(sandal, api_keys_file=keys) as http:
        assert (await http.get("/page/nothing")).status_code == 404
        assert (await http.get("/pagex")).status_code == 401


async def test_a_path_cannot_be_made_open_by_the_host_header(keys: str) -> None:
    async with gateway(sandal, api_keys_file=keys) as http:
        for host in ("g/health/live?", "health/live#", "a@b"):
            assert (await http.get("/models", headers={"Host": host})).status_code == 401


async def test_under_v2_the_refusal_has_the_protocols_form(keys: str) -> None:
    async with gateway(sandal, api_keys_file=keys) as http:
        refused = await http.get("/v2/models/fashion-mnist")
        answered = await http.get("/v2/models/fashion-mnist", headers=WITH_KEY)
    assert (refused.status_code, list(refused.json())) == (401, ["error"])
    assert refused.headers["www-authenticate"] == "Bearer"
    assert answered.status_code == 200


async def test_who_comes_too_often_is_told_when_to_come_back_and_others_are_not(keys: str) -> None:
    shop = {**PNG, "X-API-Key": "mlaas_shop"}
    async with gateway(sandal, api_keys_file=keys) as http:
        responses = [await http.post("/predict", content=SANDAL, headers=shop) for _ in range(3)]
        other = await http.post("/predict", content=SANDAL, headers=WITH_KEY)
        in_v2 = await http.get("/v2", headers=shop)
        metrics = (await http.get("/metrics")).text
    assert [response.status_code for response in responses] == [200, 200, 429]
    assert problem(responses[2], 429)["type"] == "urn:mlaas:problem:rate-limited"
    assert 10 < int(responses[2].headers["retry-after"]) <= 20
    assert other.status_code == 200
    assert (in_v2.status_code, list(in_v2.json())) == (429, ["error"])
    assert "mlaas_rate_limited_requests_total 2.0" in metrics
    assert "shop" not in metrics and "phone" not in metrics


def test_the_routes_learn_the_keys_name_and_a_new_rate_counts_anew(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(f"phone {digest_of(KEY)} 1 1")
    now = 0.0
    owners: list[str] = []

    keyed = ApiKeys(KeyFile(path, now), lambda _: False, GatewayMetrics(), clock=lambda: now)
    scope = {"type": "http", "method": "GET", "path": "/models", "headers": [(b"x-api-key", KEY.encode())]}

    def passes() -> bool:
        its = dict(scope)
        try:
            keyed.check(its)
        except RateLimited:
            return False
        owners.append(owner_of(its))
        return True

    assert [passes(), passes()] == [True, False]
    path.write_text(f"phone {digest_of(KEY)} 1 2")
    now = 1.0
    assert [passes(), passes(), passes()] == [True, True, False]
    assert owners == 3 * ["phone"]


async def test_a_gateway_whose_file_cannot_be_read_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="No such file"):
        async with gateway(sandal, api_keys_file=str(tmp_path / "none")):
            pass


async def documents(**changes: object) -> dict[str, dict]:
    async with gateway(sandal, **changes) as http:
        return (await http.get("/openapi.json")).json()


async def test_the_documentation_speaks_of_keys_only_where_there_are_keys(keys: str) -> None:
    without, with_keys = await documents(), await documents(api_keys_file=keys)
    assert "securitySchemes" not in without["components"]
    assert "401" not in without["paths"]["/predict"]["post"]["responses"]
    assert set(with_keys["components"]["securitySchemes"]) == {"ApiKey", "Bearer"}
    for path, operations in with_keys["paths"].items():
        for operation in operations.values():
            is_private = path not in OPEN
            assert ("security" in operation) == is_private
            assert ({"401", "429"} <= set(operation["responses"])) == is_private
    example = with_keys["paths"]["/predict"]["post"]["responses"]["429"]["content"][
        "application/problem+json"
    ]
    assert {"rate-limited", "too-many-in-flight"} <= set(example["examples"])


async def test_a_browser_may_ask_what_is_allowed_before_it_sends_the_key(keys: str) -> None:
    origin = "https://shop.example"
    asking = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    async with gateway(sandal, api_keys_file=keys, cors_allowed_origins=(origin,)) as http:
        preflight = await http.options("/predict", headers=asking)
        refused = await http.post("/predict", content=SANDAL, headers={**PNG, "Origin": origin})
    assert preflight.status_code == 200
    assert isinstance(refused, httpx.Response) and refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == origin
