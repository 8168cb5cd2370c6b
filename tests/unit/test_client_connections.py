"""Whose connections a client uses, and how it gets through: over real sockets."""

import asyncio
import gc
import hashlib
import json
import multiprocessing
import pickle
import shutil
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.context import ForkContext, SpawnContext
from pathlib import Path
from typing import Any

import httpx
import pytest

from mlaas_client import AsyncClient, Client, Misconfigured, Unreachable, environment

PICTURES = [bytes([number]) * 100 for number in range(8)]
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE")


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*PROXIES, *CERTIFICATES):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def digest(picture: bytes) -> str:
    return hashlib.sha256(picture).hexdigest()


class _Gateway(BaseHTTPRequestHandler):
    """Answers each picture with its digest, on connections that stay open."""

    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        super().setup()
        self.server.connections.append(self.client_address)  # type: ignore[attr-defined]

    def do_POST(self) -> None:
        picture = self.rfile.read(int(self.headers["Content-Length"]))
        answer = {"label": "Bag", "confidence": 1.0, "probabilities": {"Bag": 1.0}, "sha256": digest(picture)}
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Gateway)
        self.connections: list[Any] = []
        scheme = "https" if context else "http"
        self.url = f"{scheme}://127.0.0.1:{self.server_port}"
        if context:
            self.socket = context.wrap_socket(self.socket, server_side=True)


@contextmanager
def serving(context: ssl.SSLContext | None = None) -> Iterator[_Server]:
    with _Server(context) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def server() -> Iterator[_Server]:
    with serving() as running:
        yield running


# Processes, threads, event loops.

# asyncio.run() leaves connections that nothing can close any more, and Python says so when it collects them.
LOOPS_END = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def in_children(
    context: ForkContext | SpawnContext, ask: Callable[[Any, bytes], str], client: Any, pictures: list[bytes]
) -> list[tuple[str, str]]:
    """The digests of what each child sent, and what it was told; they ask at the same time."""
    together, told = context.Barrier(len(pictures)), context.Queue()
    children = [context.Process(target=_child, args=(ask, client, its, together, told)) for its in pictures]
    for child in children:
        child.start()
    answers = [told.get(timeout=60) for _ in children]
    for child in children:
        child.join(60)
    return answers


def _child(ask: Callable[[Any, bytes], str], client: Any, picture: bytes, together: Any, told: Any) -> None:
    together.wait(60)
    for _ in range(20):
        if (found := ask(client, picture)) != digest(picture):
            break
    told.put((digest(picture), found))


def blocking(client: Client, picture: bytes) -> str:
    try:
        return client.predict(picture).sha256
    except Exception as error:
        return type(error).__name__


def with_asyncio(client: AsyncClient, picture: bytes) -> str:
    try:
        return asyncio.run(client.predict(picture)).sha256
    except Exception as error:
        return type(error).__name__


@LOOPS_END
@pytest.mark.parametrize(("kind", "ask"), [(Client, blocking), (AsyncClient, with_asyncio)])
def test_children_of_a_fork_do_not_share_the_connections_that_they_inherit(
    server: _Server, kind: type, ask: Callable[[Any, bytes], str]
) -> None:
    client = kind(server.url)
    assert ask(client, PICTURES[0]) == digest(PICTURES[0])
    answers = in_children(multiprocessing.get_context("fork"), ask, client, PICTURES[1:4])
    assert [told for _, told in answers] == [sent for sent, _ in answers]
    assert ask(client, PICTURES[0]) == digest(PICTURES[0])
    del client
    gc.collect()


def test_a_client_can_be_given_to_a_process_that_is_spawned(server: _Server) -> None:
    with Client(server.url, api_key="k") as client:
        client.predict(PICTURES[0])
        answers = in_children(multiprocessing.get_context("spawn"), blocking, client, PICTURES[1:3])
    assert [told for _, told in answers] == [sent for sent, _ in answers]


def test_a_pickled_client_is_the_same_client_with_connections_of_its_own(server: _Server) -> None:
    with Client(server.url, api_key="secret", timeout_s=7, retries=1) as client:
        client.predict(PICTURES[0])
        with pickle.loads(pickle.dumps(client)) as copy:  # noqa: S301
            assert vars(copy)["_given"] == vars(client)["_given"]
            assert (str(vars(copy)["_key"]), vars(copy)["_url"]) == ("secret", vars(client)["_url"])
            assert copy.predict(PICTURES[1]).sha256 == digest(PICTURES[1])
        assert client.predict(PICTURES[2]).sha256 == digest(PICTURES[2])
    assert len(server.connections) == 2


def test_threads_share_a_client(server: _Server) -> None:
    with Client(server.url) as client, ThreadPoolExecutor(8) as pool:
        for _ in range(20):
            found = [*pool.map(client.predict, PICTURES)]
            assert [its.sha256 for its in found] == [digest(picture) for picture in PICTURES]


@LOOPS_END
def test_a_client_for_asyncio_outlives_an_event_loop(server: _Server) -> None:
    client = AsyncClient(server.url)
    for picture in PICTURES[:3]:
        assert with_asyncio(client, picture) == digest(picture)
    assert len(vars(client)["_pools"]) == 1
    del client
    gc.collect()


def test_a_client_that_is_closed_says_so(server: _Server) -> None:
    client = Client(server.url)
    client.close()
    client.close()
    for call in (lambda: client.predict(PICTURES[0]), lambda: client.predict_many(PICTURES), client.models):
        with pytest.raises(RuntimeError, match="this client is closed"):
            call()


@pytest.mark.anyio
async def test_a_client_for_asyncio_that_is_closed_says_so(server: _Server) -> None:
    async with AsyncClient(server.url) as client:
        await client.predict(PICTURES[0])
    for call in (client.predict(PICTURES[0]), client.predict_many(PICTURES), client.models()):
        with pytest.raises(RuntimeError, match="this client is closed"):
            await call


# TLS.


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with cert.pem, of an authority that nobody knows, and its key.pem."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl, which makes the certificate, is not installed")
    folder = tmp_path_factory.mktemp("tls")
    make = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-subj",
        "/CN=localhost",
        "-days",
        "2",
    ]
    make += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run(make, cwd=folder, capture_output=True, check=True)
    return folder


@contextmanager
def serving_tls(folder: Path) -> Iterator[_Server]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    with serving(context) as server:
        yield server


def test_a_child_that_ends_leaves_its_parents_session_alone(
    tls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask_and_close(client: Client, picture: bytes) -> str:
        with client:
            return blocking(client, picture)

    def one_call(client: Client, picture: bytes, told: Any) -> None:
        told.put(ask_and_close(client, picture))

    monkeypatch.setenv("SSL_CERT_FILE", str(tls / "cert.pem"))
    fork = multiprocessing.get_context("fork")
    with serving_tls(tls) as server, Client(server.url) as client:
        assert client.predict(PICTURES[0]).sha256 == digest(PICTURES[0])
        told = fork.Queue()
        child = fork.Process(target=one_call, args=(client, PICTURES[1], told))
        child.start()
        assert told.get(timeout=60) == digest(PICTURES[1])
        child.join(60)
        assert client.predict(PICTURES[2]).sha256 == digest(PICTURES[2])
        assert len(server.connections) == 2


def test_a_certificate_that_is_not_trusted_is_said_once(tls: Path) -> None:
    said = pytest.raises(Misconfigured, match=r"not trusted.*SSL_CERT_FILE")
    with serving_tls(tls) as server, Client(server.url) as client, said:
        client.predict(PICTURES[0])


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSLKEYLOGFILE"])
def test_a_certificate_file_that_is_missing_is_named_by_its_variable(
    variable: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(variable, str(tmp_path / "missing" / "ca.pem"))
    with Client("https://127.0.0.1:1") as client:
        with pytest.raises(Misconfigured, match=f"{variable} names cannot be used .No such file"):
            client.predict(PICTURES[0])
        with pytest.raises(Misconfigured, match=variable):
            client.predict_many(PICTURES)


def test_without_tls_no_certificate_is_looked_for(server: _Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/no/such/file.pem")
    with Client(server.url) as client:
        assert client.predict(PICTURES[0]).sha256 == digest(PICTURES[0])


# Proxies.


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_a_proxy_that_does_not_answer_is_named_by_its_variable(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "http://user:hush@127.0.0.1:1")
    with (
        Client("http://gateway.example:8000", retries=0) as client,
        pytest.raises(Unreachable, match=f"through the proxy 127.0.0.1:1 that {variable} names") as caught,
    ):
        client.predict(PICTURES[0])
    assert "NO_PROXY=gateway.example" in str(caught.value)
    assert "hush" not in str(caught.value)


def test_a_proxy_that_answers_is_used(server: _Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", server.url.removeprefix("http://"))
    with Client("http://gateway.example:8000") as client:
        assert client.predict(PICTURES[0]).sha256 == digest(PICTURES[0])


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("socks5://127.0.0.1:1", "SOCKS proxy.*pip install socksio"),
        ("socks4://127.0.0.1:1", "not the URL of a proxy"),
        ("http://host:port", "not the URL of a proxy"),
        ("http://[::1", "not the URL of a proxy"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_named_by_its_variable(
    address: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if said.startswith("SOCKS"):
        monkeypatch.setattr(environment, "find_spec", lambda _: None)
    monkeypatch.setenv("ALL_PROXY", address)
    with (
        Client("http://127.0.0.1:8000") as client,
        pytest.raises(Misconfigured, match=f"ALL_PROXY (is|names).*{said}") as caught,
    ):
        client.predict(PICTURES[0])
    assert "NO_PROXY=127.0.0.1" in str(caught.value)


def test_a_proxy_for_other_addresses_is_none_of_a_clients_concern(
    server: _Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ask() -> str:
        async with AsyncClient(server.url) as client:
            return (await client.predict(PICTURES[0])).sha256

    monkeypatch.setenv("ALL_PROXY", "socks4://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "example.com,127.0.0.1")
    with Client(server.url) as client:
        assert client.predict(PICTURES[0]).sha256 == asyncio.run(ask()) == digest(PICTURES[0])


@pytest.mark.parametrize(
    ("entries", "url", "is_proxied"),
    [
        ("*", "http://a.example", False),
        ("a.example", "http://a.example", False),
        ("A.Example", "http://a.example", False),
        ("a.example", "http://b.a.example", False),
        (".a.example", "http://a.example", False),
        ("*.a.example", "http://b.a.example", False),
        ("a.example", "http://ba.example", True),
        ("a.example:8000", "http://a.example:8000", False),
        ("a.example:80", "http://a.example", False),
        ("a.example:8001", "http://a.example:8000", True),
        ("http://a.example", "http://a.example", False),
        ("https://a.example", "http://a.example", True),
        ("b.example, a.example", "http://a.example", False),
        ("b.example a.example", "http://a.example", False),
        ("127.0.0.1", "http://127.0.0.1:8000", False),
        ("127.0.0.0/8", "http://127.0.0.1:8000", False),
        ("10.0.0.0/8", "http://127.0.0.1:8000", True),
        ("127.0.0.1", "http://localhost:8000", True),
        ("::1", "http://[::1]:8000", False),
        ("[::1]", "http://[::1]:8000", False),
        ("[::1]:8000", "http://[::1]:8000", False),
        ("[::1", "http://[::1]:8000", False),
        ("fd00::/8", "http://[fd00::7]:8000", False),
        ("[::1],,:,a:b", "http://a.example", True),
        ("", "http://a.example", True),
    ],
)
def test_no_proxy_names_hosts_domains_ports_and_networks(
    entries: str, url: str, is_proxied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", entries)
    assert bool(environment.options(httpx.URL(url))["proxy"]) == is_proxied
    assert bool(environment.route(httpx.URL(url))) == is_proxied
