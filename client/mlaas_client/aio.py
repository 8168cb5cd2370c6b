"""The client for asyncio."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Concatenate, ParamSpec, Self, TypeVar, Unpack

import httpx

from mlaas_client.base import Base, documented
from mlaas_client.calls import Asked, Call, Calls
from mlaas_client.many import Many, Progress
from mlaas_client.pictures import Picture
from mlaas_client.results import Outcome

P = ParamSpec("P")
T = TypeVar("T")


def _awaited(
    call: Callable[Concatenate[Calls, P], Call[T]],
) -> Callable[Concatenate["AsyncClient", P], Coroutine[Any, Any, T]]:
    async def method(self: "AsyncClient", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._run(call(self._calls, *args, **kwargs))

    documented(method, call)
    return method


class AsyncClient(Base):
    """Like Client, with `await` before each call. Each event loop has connections of its own."""

    _new = httpx.AsyncClient

    predict = _awaited(Calls.predict)
    models = _awaited(Calls.models)
    submit = _awaited(Calls.submit)
    result = _awaited(Calls.result)
    cancel = _awaited(Calls.cancel)

    async def predict_many(
        self,
        pictures: Iterable[Picture],
        *,
        concurrency: int = 4,
        progress: Progress | None = None,
        **asked: Unpack[Asked],
    ) -> list[Outcome]:
        """Like Client.predict_many."""
        self._http()
        many = Many(pictures, concurrency, progress)

        async def work() -> None:
            while uploads := await asyncio.to_thread(many.take):  # it reads files
                many.bring(await self._run(self._calls.chunk(uploads, asked)))

        async with asyncio.TaskGroup() as workers:
            for _ in range(concurrency):
                workers.create_task(work())
        return many.outcomes

    async def _run(self, call: Call[T]) -> T:
        came: Any = None
        while True:
            try:
                step = call.send(came)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            came = await (asyncio.sleep(step) if isinstance(step, float) else self._send(step))

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
