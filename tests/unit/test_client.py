"""Both clients, over httpx's MockTransport."""

import inspect
import json
import threading
from collections.abc import Callable, Iterator

import httpx
import pytest

import mlaas
import mlaas_client
from mlaas_client import AsyncClient, Client, Prediction, Refused, Unauthorized
from tests.unit.gateways import SANDAL

ANSWER = {"label": "Sandal", "confidence": 0.9, "probabilities": {"Sandal": 0.9}}


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("MLAAS_URL", "MLAAS_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    yield


def over(answer: Callable[[httpx.Request], httpx.Response], **more: object) -> Client:
    return Client("http://g", transport=httpx.MockTransport(answer), **more)  # type: ignore[arg-type]


def named(request: httpx.Request) -> list[bytes]:
    """The contents of the form's files: here one byte each."""
    parts = request.content.split(b"\r\n\r\n")[1:]
    return [part.partition(b"\r\n")[0] for part in parts]


def batch(request: httpx.Request) -> httpx.Response:
    """Names each picture's label after its content; x is none."""
    bad = {"title": "Not a picture", "status": 422, "detail": "x"}
    results = [
        {"index": index, "problem": bad}
        if content == b"x"
        else {"index": index, "prediction": {**ANSWER, "label": content.decode()}}
        for index, content in enumerate(named(request))
    ]
    return httpx.Response(200, json={"results": results})


def test_the_blocking_client_sends_again_what_failed_in_passing() -> None:
    answers = iter([httpx.Response(503), httpx.Response(200, json=ANSWER)])
    with over(lambda _: next(answers)) as asking:
        assert asking.predict(SANDAL).label == "Sandal"


def test_a_lost_connection_is_sent_again() -> None:
    tries = iter([True, False])

    def answer(request: httpx.Request) -> httpx.Response:
        if next(tries):
            raise httpx.RemoteProtocolError("cut", request=request)
        return httpx.Response(200, json=ANSWER)

    with over(answer) as asking:
        assert asking.predict(SANDAL).label == "Sandal"


@pytest.mark.anyio
async def test_the_client_for_asyncio_does_the_same() -> None:
    answers = iter([httpx.Response(503), httpx.Response(200, json=ANSWER)])
    async with AsyncClient("http://g", transport=httpx.MockTransport(lambda _: next(answers))) as asking:
        assert (await asking.predict(SANDAL)).label == "Sandal"


def test_of_many_each_has_its_own_outcome_in_order() -> None:
    contents = [str(number).encode() for number in range(100)]
    contents[37] = b"x"
    told: list[tuple[int, int]] = []
    with over(batch) as asking:
        given = [*contents, "nothing.png"]
        outcomes = asking.predict_many(given, progress=lambda *its: told.append(its))
    labels = [its.label if isinstance(its, Prediction) else type(its).__name__ for its in outcomes]
    expected = [*map(str, range(37)), "Refused", *map(str, range(38, 100)), "PictureUnreadable"]
    assert labels == expected
    done = [done for done, _ in told]
    assert done == sorted(set(done))
    assert told[-1] == (101, 101)


@pytest.mark.anyio
async def test_of_many_each_has_its_own_outcome_with_asyncio_too() -> None:
    async with AsyncClient("http://g", transport=httpx.MockTransport(batch)) as asking:
        outcomes = await asking.predict_many([b"a", b"x", b"c"], concurrency=2)
    assert [type(its) for its in outcomes] == [Prediction, Refused, Prediction]


def test_no_more_requests_than_asked_for_are_under_way_at_once() -> None:
    under_way, most, lock = 0, 0, threading.Lock()
    both = threading.Barrier(2, timeout=30)

    def answer(request: httpx.Request) -> httpx.Response:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        both.wait()
        with lock:
            under_way -= 1
        return batch(request)

    with over(answer) as asking:
        assert len(asking.predict_many([b"a"] * 128, concurrency=2)) == 128
    assert most == 2


def test_no_picture_at_all_is_no_request() -> None:
    with over(lambda _: httpx.Response(500)) as asking:
        assert asking.predict_many([]) == []


def test_nobody_to_ask_at_once_is_an_error() -> None:
    with over(batch) as asking, pytest.raises(ValueError, match="at least 1, not 0"):
        asking.predict_many([b"a"], concurrency=0)


def test_what_stops_one_stops_all_and_is_raised() -> None:
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return batch(request)

    def interrupted(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with over(answer) as asking, pytest.raises(KeyboardInterrupt):
        asking.predict_many([b"a"] * 3200, concurrency=1, progress=interrupted)
    assert len(asked) == 1


def test_an_error_of_the_whole_request_is_each_pictures() -> None:
    with over(lambda _: httpx.Response(401, json={"title": "No key", "status": 401})) as asking:
        outcomes = asking.predict_many([b"a", b"b"])
    assert [type(its) for its in outcomes] == [Unauthorized] * 2


def test_the_key_is_sent_and_shown_nowhere() -> None:
    keys = []

    def answer(request: httpx.Request) -> httpx.Response:
        keys.append(request.headers.get("X-API-Key"))
        return httpx.Response(200, json=ANSWER)

    with over(answer, api_key="secret\n") as asking:
        asking.predict(SANDAL)
        assert "secret" not in repr(asking) + str(vars(asking))
    with over(answer) as asking:
        asking.predict(SANDAL)
    assert keys == ["secret", None]


def test_a_key_that_no_header_carries_is_refused_without_showing_it() -> None:
    with pytest.raises(ValueError, match="no header") as caught:
        Client(api_key="se\ncret")
    assert "cret" not in str(caught.value)


def test_url_and_key_are_taken_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLAAS_URL", "g.example:8123")
    monkeypatch.setenv("MLAAS_API_KEY", "k")
    seen = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append((str(request.url), request.headers["X-API-Key"]))
        return httpx.Response(200, json=ANSWER)

    with Client(transport=httpx.MockTransport(answer)) as asking:
        asking.predict(SANDAL)
    assert seen == [("http://g.example:8123/predict", "k")]


def test_a_gateway_may_be_below_a_path() -> None:
    paths = []

    def answer(request: httpx.Request) -> httpx.Response:
        paths.append(request.url.path)
        return httpx.Response(200, json={"models": []})

    with Client("http://g/mlaas/", transport=httpx.MockTransport(answer)) as asking:
        assert asking.models() == []
    assert paths == ["/mlaas/models"]


@pytest.mark.parametrize("url", ["kafka://localhost:9092", "http://host:port", "ftp://g", "http://"])
def test_a_url_that_is_none_is_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"^'.* is not the URL of a gateway"):
        Client(url)
    monkeypatch.setenv("MLAAS_URL", url)
    with pytest.raises(ValueError, match=r"^MLAAS_URL: .* is not the URL of a gateway"):
        Client()


def test_schemes_have_no_case() -> None:
    transport = httpx.MockTransport(
        lambda request: httpx.Response(200, json={**ANSWER, "model": str(request.url)})
    )
    with Client("HTTP://G:8000", transport=transport) as asking:
        assert asking.predict(SANDAL).model == "http://g:8000/predict"


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_help_shows_what_a_method_takes_and_gives(kind: type) -> None:
    shown = inspect.signature(kind.predict)
    options = ["model", "version", "top_k", "mode", "explain", "timeout_s"]
    assert list(shown.parameters) == ["self", "picture", *options]
    assert list(inspect.signature(kind.result).parameters) == ["self", "job", "wait_s"]
    assert shown.return_annotation is Prediction
    assert "Raises MlaasError" in (kind.predict.__doc__ or "")


def test_mlaas_gives_the_client_too() -> None:
    assert all(getattr(mlaas, name) is getattr(mlaas_client, name) for name in mlaas_client.__all__)
    with pytest.raises(AttributeError, match="nothing"):
        _ = mlaas.nothing  # type: ignore[attr-defined]


def test_what_comes_back_can_be_written_as_json() -> None:
    with over(lambda _: httpx.Response(200, json=ANSWER)) as its:
        assert json.loads(json.dumps(its.predict(SANDAL).raw)) == ANSWER
