"""The clients, blocking and for asyncio. Both run the generators of Calls."""

import asyncio
import inspect
import os
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial, update_wrapper
from inspect import Parameter
from typing import Any, Concatenate, ParamSpec, Self, TypeAlias, TypeVar, Unpack, get_args

import httpx

from mlaas_client import environment
from mlaas_client.calls import Call, Calls, Options
from mlaas_client.errors import PictureUnreadable
from mlaas_client.pictures import Picture, Upload, read
from mlaas_client.results import Outcome

P = ParamSpec("P")
T = TypeVar("T")
Progress: TypeAlias = Callable[[int, int], object]

DEFAULT_URL = "http://localhost:8000"

_CHUNK_PICTURES = 32  # as many as a worker takes at once; docs/decisions/0004-predict-many.md
_CHUNK_BYTES = 4 * 1024 * 1024  # fits into the embedded broker


class _Key(str):
    """Hides the API key in reprs."""

    def __repr__(self) -> str:
        return "'***'"


class BaseClient:
    """url and api_key default to MLAAS_URL and MLAAS_API_KEY. transport is an httpx transport, for tests.

    The gateway gets timeout_s seconds for each call; the client waits one second longer. Lost connections and
    responses 429 and 503 are retried up to `retries` times.

    Share one client between threads, with forked processes, and by pickling: each process opens connections
    of its own. Close it, or use it in a with statement.
    """

    _new: Any  # httpx.Client or httpx.AsyncClient

    def __init__(
        self,
        url: str | None = None,
        *,
        api_key: str | None = None,
        timeout_s: float = 30.0,
        retries: int = 4,
        transport: Any = None,
    ) -> None:
        """Raises ValueError for an invalid URL or API key."""
        self._url = _address(url) if url else _address(os.environ.get("MLAAS_URL"), "MLAAS_URL: ")
        self._key = _Key((api_key or os.environ.get("MLAAS_API_KEY") or "").strip())
        if not (self._key.isascii() and self._key.isprintable()):
            raise ValueError("the API key contains characters that no header can carry")
        self._given = {"timeout_s": timeout_s, "retries": retries, "transport": transport}
        self._calls = Calls(timeout_s, retries)
        self._pools: dict[tuple[int, Any], Any] = {}
        self._is_closed = False

    def __reduce__(self) -> Any:
        return partial(type(self), str(self._url), api_key=str(self._key), **self._given), ()

    def _loop(self) -> Any:
        """The running event loop; None in a blocking client."""
        return None

    def _http(self) -> Any:
        """The httpx client of this process and event loop. Raises Misconfigured.

        Processes that share a connection would read each other's responses. An httpx client inherited by fork
        is kept but not used: freeing it would remove its sockets from the selector shared with the parent.
        """
        if self._is_closed:
            raise RuntimeError("this client is closed: create another")
        here = (os.getpid(), self._loop())
        if http := self._pools.get(here):
            return http
        for pid, loop in [*self._pools]:
            if pid == here[0] and loop and loop.is_closed():
                self._pools.pop((pid, loop), None)
        transport = self._given["transport"]
        options = {"transport": transport} if transport else environment.options(self._url)
        headers = {"X-API-Key": str(self._key)} if self._key else {}
        return self._pools.setdefault(here, self._new(base_url=self._url, headers=headers, **options))

    def _close(self) -> Any:
        """The httpx client of this process and event loop, for the caller to close."""
        self._is_closed = True
        return self._pools.pop((os.getpid(), self._loop()), None)

    def _noted(self, error: httpx.RequestError) -> httpx.RequestError:
        """Add a note about the proxy, if there is one."""
        if not self._given["transport"] and (route := environment.route(self._url)):
            error.add_note(route)
        return error


def _document(method: Callable[..., Any], call: Callable[..., Any]) -> None:
    """Give a method the name, docstring and signature of its call, with the options spelled out."""
    update_wrapper(method, call)
    signature = inspect.signature(call)
    plain = [each for each in signature.parameters.values() if each.kind is not Parameter.VAR_KEYWORD]
    hints = Options.__annotations__ if len(plain) < len(signature.parameters) else {}
    options = [
        Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=hint) for name, hint in hints.items()
    ]
    (*_, returned) = get_args(signature.return_annotation)
    shown = signature.replace(parameters=[*plain, *options], return_annotation=returned)
    setattr(method, "__signature__", shown)  # noqa: B010


def _blocking(call: Callable[Concatenate[Calls, P], Call[T]]) -> Callable[Concatenate["Client", P], T]:
    def method(self: "Client", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._run(call(self._calls, *args, **kwargs))

    _document(method, call)
    return method


class Client(BaseClient):
    """A blocking client, safe to share between threads."""

    _new = httpx.Client

    predict = _blocking(Calls.predict)
    predict_row = _blocking(Calls.predict_row)
    models = _blocking(Calls.models)
    submit = _blocking(Calls.submit)
    result = _blocking(Calls.result)
    jobs = _blocking(Calls.jobs)
    cancel = _blocking(Calls.cancel)

    def predict_many(
        self,
        pictures: Iterable[Picture],
        *,
        concurrency: int = 4,
        progress: Progress | None = None,
        **options: Unpack[Options],
    ) -> list[Outcome]:
        """Classify many pictures. Returns a Prediction or an MlaasError for each, in order.

        timeout_s applies to each request, of up to 32 pictures, after which progress(done, total) is called.
        Raises Misconfigured, and ValueError for a concurrency below 1.
        """
        self._http()
        queue = _Queue(pictures, concurrency, progress)

        def work() -> None:
            while uploads := queue.take():
                queue.finish(self._run(self._calls.chunk(uploads, options)))

        with ThreadPoolExecutor(concurrency) as pool:
            try:
                for worker in [pool.submit(work) for _ in range(concurrency)]:
                    worker.result()
            finally:
                queue.stop()
        return queue.outcomes

    def _run(self, call: Call[T]) -> T:
        outcome: Any = None
        while True:
            try:
                step = call.send(outcome)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            outcome = self._sleep(step) if isinstance(step, float) else self._send(step)

    _sleep = staticmethod(time.sleep)

    def _send(self, request: dict[str, Any]) -> Any:
        try:
            return self._http().request(**request)
        except httpx.RequestError as error:
            return self._noted(error)

    def close(self) -> None:
        """Close the connections of this process."""
        if http := self._close():
            http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _awaited(
    call: Callable[Concatenate[Calls, P], Call[T]],
) -> Callable[Concatenate["AsyncClient", P], Coroutine[Any, Any, T]]:
    async def method(self: "AsyncClient", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._run(call(self._calls, *args, **kwargs))

    _document(method, call)
    return method


class AsyncClient(BaseClient):
    """A client with the methods of Client as coroutines. It opens connections for each event loop."""

    _new = httpx.AsyncClient

    predict = _awaited(Calls.predict)
    predict_row = _awaited(Calls.predict_row)
    models = _awaited(Calls.models)
    submit = _awaited(Calls.submit)
    result = _awaited(Calls.result)
    jobs = _awaited(Calls.jobs)
    cancel = _awaited(Calls.cancel)

    async def predict_many(
        self,
        pictures: Iterable[Picture],
        *,
        concurrency: int = 4,
        progress: Progress | None = None,
        **options: Unpack[Options],
    ) -> list[Outcome]:
        """See Client.predict_many."""
        self._http()
        queue = _Queue(pictures, concurrency, progress)

        async def work() -> None:
            while uploads := await asyncio.to_thread(queue.take):  # it reads files
                queue.finish(await self._run(self._calls.chunk(uploads, options)))

        async with asyncio.TaskGroup() as workers:
            for _ in range(concurrency):
                workers.create_task(work())
        return queue.outcomes

    async def _run(self, call: Call[T]) -> T:
        outcome: Any = None
        while True:
            try:
                step = call.send(outcome)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            outcome = await (asyncio.sleep(step) if isinstance(step, float) else self._send(step))

    async def _send(self, request: dict[str, Any]) -> Any:
        try:
            return await self._http().request(**request)
        except httpx.RequestError as error:
            return self._noted(error)

    def _loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    async def close(self) -> None:
        """Close the connections of this event loop."""
        if http := self._close():
            await http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class _Queue:
    """The pictures of one predict_many, taken in chunks by concurrent threads or tasks."""

    def __init__(self, pictures: Iterable[Picture], concurrency: int, progress: Progress | None) -> None:
        if concurrency < 1:
            raise ValueError(f"concurrency must be at least 1, not {concurrency}")
        waiting = list(pictures)
        self.outcomes: list[Outcome] = [PictureUnreadable("not processed")] * len(waiting)
        self._chunk = min(_CHUNK_PICTURES, -(-len(waiting) // concurrency))
        self._waiting, self._done, self._progress = enumerate(waiting), 0, progress
        self._lock = threading.RLock()

    def take(self) -> dict[int, Upload]:
        """The next chunk; empty at the end. Files are read here, so that few are in memory at a time."""
        chunk: dict[int, Upload] = {}
        with self._lock:
            for index, picture in self._waiting:
                try:
                    chunk[index] = read(picture)
                except PictureUnreadable as error:
                    self.finish({index: error})
                size = sum(len(upload.content) for upload in chunk.values())
                if len(chunk) >= self._chunk or size >= _CHUNK_BYTES:
                    break
        return chunk

    def finish(self, outcomes: Mapping[int, Outcome]) -> None:
        with self._lock:
            for index, outcome in outcomes.items():
                self.outcomes[index] = outcome
            self._done += len(outcomes)
            if self._progress:
                self._progress(self._done, len(self.outcomes))

    def stop(self) -> None:
        with self._lock:
            self._waiting = enumerate(())


def _address(text: str | None, source: str = "") -> httpx.URL:
    text = text or DEFAULT_URL
    try:
        url = httpx.URL(text if "://" in text else f"http://{text}")
        if url.scheme in ("http", "https") and url.host:
            return url
        reason = ""
    except httpx.InvalidURL as error:
        reason = f": {error}"
    raise ValueError(f"{source}{text!r} is not the URL of a gateway, such as {DEFAULT_URL}{reason}")
