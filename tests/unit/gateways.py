"""A gateway over a broker in memory, with a worker that behaves as a test says."""

import asyncio
import contextlib
import hashlib
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path

import httpx
import msgspec
from uvicorn import Config
from uvicorn.server import ServerState

from gateway import GatewaySettings
from gateway.app import create_app
from gateway.http_protocol import BoundedProtocol
from gateway.metrics import AccessLog
from gateway.request_reply import Requester
from messaging import Queue, TopicSettings, codec
from messaging.broker import BrokerUnavailable
from messaging.contract import Reply, Request, ServedModel, Timings, UnservedModel
from messaging.memory import MemoryBroker
from mlaas.settings import load

TOPICS = load(None, {}).topics
SHARED = TOPICS.queue_of("")
SAMPLES = Path(__file__).parents[2] / "samples"
SANDAL = (SAMPLES / "sandal.png").read_bytes()
PNG = {"Content-Type": "image/png"}
TIMINGS = Timings(queue_ms=1, batch_ms=1, decode_ms=1, infer_ms=1, batch_size=1)

LABELS = [
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
]
SMALL = ServedModel(
    name="fashion-mnist",
    version="1",
    default=True,
    runtime="onnx",
    labels=LABELS,
    input="28 x 28 grey",
    sha256=64 * "a",
    accuracy=0.94,
)
LARGE = msgspec.structs.replace(SMALL, name="fashion-mnist-large", default=False, runtime="keras")

Worker = Callable[[Request], Reply | None]


def sandal(request: Request) -> Reply:
    return Reply(
        sha256=hashlib.sha256(request.body).hexdigest(),
        model="fashion-mnist",
        version="1",
        probabilities={"Sneaker": 0.2, "Sandal": 0.8},
        timings=TIMINGS,
    )


def silent(request: Request) -> None:
    return None


@contextmanager
def working(
    broker: MemoryBroker,
    worker: Worker,
    served: Sequence[ServedModel] = (SMALL, LARGE),
    queue: Queue = SHARED,
    unserved: Sequence[UnservedModel] = (),
) -> Iterator[None]:
    """A worker of the queue: answers pings at once, and pictures as the worker says."""
    stop = threading.Event()

    def serve() -> None:
        subscriptions = [broker.subscribe(topic, "g") for topic in (queue.requests, queue.jobs)]
        while not stop.is_set():
            for delivery in [each for one in subscriptions for each in one.receive(10, 0.005)]:
                request = codec.decode_request(delivery.message)
                ping = Reply(sha256="", model="m", version="1", models=list(served), unserved=list(unserved))
                reply = ping if request.is_ping else worker(request)
                if reply is not None:
                    address = codec.return_address(delivery.message)
                    with contextlib.suppress(BrokerUnavailable):  # the gateway has closed it
                        broker.publish(address.reply_to, codec.encode_reply(reply, address))

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def gateway_settings(**changes: object) -> GatewaySettings:
    changes = {"reply_timeout_ms": 5_000, "ping_interval_ms": 10, "drain_timeout_ms": 200, **changes}
    return msgspec.structs.replace(load(None, {}).gateway, **changes)


@asynccontextmanager
async def gateway(
    worker: Worker | None,
    broker: MemoryBroker | None = None,
    served: Sequence[ServedModel] = (SMALL, LARGE),
    topics: TopicSettings = TOPICS,
    access_log: AccessLog | None = None,
    unserved: Sequence[UnservedModel] = (),
    **changes: object,
) -> AsyncIterator[httpx.AsyncClient]:
    broker = broker or MemoryBroker()
    settings = gateway_settings(**changes)
    requester = Requester(broker, topics, settings)
    app = create_app(requester, settings, access_log=access_log)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    played = working(broker, worker, served, unserved=unserved) if worker else contextlib.nullcontext()
    with played:
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://g") as http,
        ):
            while worker and (await http.get("/health/ready")).status_code != 200:
                await asyncio.sleep(0.005)
            yield http


@asynccontextmanager
async def listening(
    worker: Worker, broker: MemoryBroker | None = None, **changes: object
) -> AsyncIterator[httpx.AsyncClient]:
    """The same over real connections, as the server has them."""
    broker, settings = broker or MemoryBroker(), gateway_settings(**changes)
    requester = Requester(broker, TOPICS, settings)
    app = create_app(requester, settings)
    bounds = {"max_head_bytes": 65_536, "head_timeout_s": 60, "max_rest_bytes": 10**7, "rest_timeout_s": 60}
    config = Config(app, log_config=None, access_log=False, ws="none", proxy_headers=False)
    protocol = partial(BoundedProtocol, config, ServerState(), {}, **bounds)
    with working(broker, worker):
        async with (
            app.router.lifespan_context(app),
            await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0) as server,
        ):
            port = server.sockets[0].getsockname()[1]
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as http:
                while (await http.get("/health/ready")).status_code != 200:
                    await asyncio.sleep(0.005)
                yield http


def problem(response: httpx.Response, status: int) -> dict[str, object]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    document = response.json()
    assert document["status"] == status
    assert document["title"]
    assert document["request_id"] == response.headers["x-request-id"]
    return document
