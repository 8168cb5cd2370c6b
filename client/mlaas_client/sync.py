"""The client that blocks."""

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Concatenate, ParamSpec, Self, TypeVar, Unpack

import httpx

from mlaas_client.base import Base, documented
from mlaas_client.calls import Asked, Call, Calls
from mlaas_client.many import Many, Progress
from mlaas_client.pictures import Picture
from mlaas_client.results import Outcome

P = ParamSpec("P")
T = TypeVar("T")


def _blocking(call: Callable[Concatenate[Calls, P], Call[T]]) -> Callable[Concatenate["Client", P], T]:
    def method(self: "Client", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._run(call(self._calls, *args, **kwargs))

    documented(method, call)
    return method


class Client(Base):
    """The calls block. Safe to share between threads."""

    _new = httpx.Client

    predict = _blocking(Calls.predict)
    models = _blocking(Calls.models)
    submit = _blocking(Calls.submit)
    result = _blocking(Calls.result)
    cancel = _blocking(Calls.cancel)

    def predict_many(
        self,
        pictures: Iterable[Picture],
        *,
        concurrency: int = 4,
        progress: Progress | None = None,
        **asked: Unpack[Asked],
    ) -> list[Outcome]:
        """For each picture, in order, its Prediction, or the MlaasError that there is in its place.

        timeout_s applies to each request of up to 32 pictures; progress(done, total) is called after each.
        Raises Misconfigured.
        """
        self._http()
        many = Many(pictures, concurrency, progress)

        def work() -> None:
            while uploads := many.take():
                many.bring(self._run(self._calls.chunk(uploads, asked)))

        with ThreadPoolExecutor(concurrency) as pool:
            try:
                for worker in [pool.submit(work) for _ in range(concurrency)]:
                    worker.result()
            finally:
                many.stop()
        return many.outcomes

    def _run(self, call: Call[T]) -> T:
        came: Any = None
        while True:
            try:
                step = call.send(came)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            came = self._sleep(step) if isinstance(step, float) else self._send(step)

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
