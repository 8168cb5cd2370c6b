"""POST /predict and POST /predict/batch."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import NamedTuple

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from gateway import GatewaySettings, openapi, problem
from gateway.answer import Prediction, prediction, server_timing
from gateway.asked import (
    PARAMETERS,
    Deadline,
    Query,
    Upload,
    check,
    declared_type,
    essence,
    read_deadline,
    read_picture,
    read_pictures,
    read_query,
)
from gateway.body import body_of_form, while_connected
from gateway.errors import GatewayError, TooManyInFlight
from gateway.middleware import Answer, RouteFacts, Router, request_id
from gateway.models import named
from gateway.problem import Problem
from gateway.request_reply import Requester
from gateway.tensors import from_body, picture_from
from messaging.contract import MOST_LABELS, TENSOR, Reply

# Parsing a longer body would noticeably delay other requests.
_LONG_BYTES = 100_000

_encode = msgspec.json.Encoder().encode


class BatchEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One picture or row: either its prediction or its problem. The filename of a row is empty."""

    index: int
    filename: str
    prediction: Prediction | None = None
    problem: Problem | None = None


class BatchTimings(msgspec.Struct, frozen=True):
    """Milliseconds."""

    total_ms: float


class BatchResult(msgspec.Struct, frozen=True):
    """The results, in the order of the files."""

    results: list[BatchEntry]
    request_id: str
    timings: BatchTimings


class Checked(NamedTuple):
    """A picture or a row of numbers that may go to the workers."""

    content: bytes
    media_type: str
    cost_ms: float


def row(content: bytes) -> Checked:
    return Checked(content, TENSOR, 0.0)


def is_json(request: Request) -> bool:
    """Whether the body has rows of numbers, not pictures."""
    return essence(declared_type(request)) == "application/json"


async def read_rows(
    request: Request, requester: Requester, model: str, most: int, most_bytes: int
) -> list[bytes]:
    """The rows in a JSON body, as a worker takes them: up to `most`, each of up to most_bytes.

    Raises GatewayError.
    """
    content, its = await request.body(), await named(requester, model)
    if len(content) > _LONG_BYTES:
        return await asyncio.to_thread(from_body, content, its, most, most_bytes)
    return from_body(content, its, most, most_bytes)


class PredictRoutes:
    """Endpoints that send pictures to the workers and wait for the replies."""

    def __init__(self, requester: Requester, settings: GatewaySettings) -> None:
        self._requester = requester
        self._settings = settings

    def router(self) -> Router:
        router = Router(tags=["predict"])
        parameters = [*PARAMETERS, openapi.TIMEOUT]
        router.add(
            "POST",
            "/predict",
            self.predict,
            summary="Ask a model about a picture, or a row of numbers",
            responses=openapi.answers(Prediction, *openapi.OF_A_PICTURE),
            openapi_extra={"parameters": parameters, **openapi.PICTURE_BODY},
        )
        router.add(
            "POST",
            "/predict/batch",
            self.predict_batch,
            RouteFacts(body=body_of_form(self._settings.max_batch_bytes, "gateway.max_batch_bytes")),
            summary="Ask a model about many pictures or rows",
            responses=openapi.answers(BatchResult, *openapi.OF_A_PICTURE),
            openapi_extra={"parameters": parameters, **openapi.PICTURES_BODY},
        )
        return router

    async def predict(self, request: Request) -> Response:
        """Send one picture, in the form field `file` or as the body itself.

        As JSON, a picture is `{"image": base64}`. To a model of kind `tensor`, send one row of numbers:
        `{"inputs": [row]}`.

        The default model, fashion-mnist as shipped, is for small grey pictures: for photos, add
        `?model=clothing-photo`.
        """
        asked, deadline = read_query(request), read_deadline(request, self._settings.reply_timeout_ms)
        self._requester.admit(asked.model, 0, 0.0, deadline.timeout_s)
        if is_json(request):
            one = await self._of_json(request, asked)
        else:
            one = self._check(await read_picture(request), asked)
        async with while_connected(request):
            reply = await self._ask(one, asked, deadline)
        answer = prediction(reply, request_id(request.scope), deadline.passed_ms(), asked.top_k)
        return Answer(_encode(answer), (b"server-timing", server_timing(answer.timings).encode()))

    async def _of_json(self, request: Request, asked: Query) -> "Checked":
        content = await request.body()
        is_long = len(content) > _LONG_BYTES
        picture = await asyncio.to_thread(picture_from, content) if is_long else picture_from(content)
        if picture is not None:
            return self._check(Upload(picture, "", ""), asked)
        (its_row,) = await self._rows(request, asked, 1)
        return row(its_row)

    async def predict_batch(self, request: Request) -> Response:
        """Send many pictures, each in a form field `file`, or rows of numbers: `{"inputs": [row, row]}`.

        Each gets its own prediction or problem.
        """
        asked, deadline = read_query(request), read_deadline(request, self._settings.reply_timeout_ms)
        self._requester.admit(asked.model, 0, 0.0, deadline.timeout_s)
        most = self._settings.max_batch_files
        if is_json(request):
            inputs: Sequence[Upload | Checked] = [
                row(each) for each in await self._rows(request, asked, most)
            ]
        else:
            inputs = await read_pictures(request, most)
        budget, its_id = CallBudget(), request_id(request.scope)
        async with while_connected(request):
            results = await asyncio.gather(
                *(self._entry(*one, its_id, asked, deadline, budget) for one in enumerate(inputs))
            )
        result = BatchResult(results, its_id, BatchTimings(round(deadline.passed_ms(), 3)))
        return Answer(_encode(result))

    async def _entry(
        self,
        index: int,
        given: "Upload | Checked",
        its_id: str,
        asked: Query,
        deadline: Deadline,
        budget: "CallBudget",
    ) -> BatchEntry:
        filename = given.filename[:255] if isinstance(given, Upload) else ""
        try:
            one = self._check(given, asked) if isinstance(given, Upload) else given
            reply = await budget.spend(lambda: self._ask(one, asked, deadline))
            found = prediction(reply, its_id, deadline.passed_ms(), asked.top_k)
        except GatewayError as error:
            return BatchEntry(index=index, filename=filename, problem=problem.document(error, its_id))
        return BatchEntry(index=index, filename=filename, prediction=found)

    def _check(self, upload: Upload, asked: Query) -> "Checked":
        max_bytes, max_pixels = self._settings.max_upload_bytes, self._settings.max_pixels
        header = check(upload.content, upload.declared, max_bytes=max_bytes, max_pixels=max_pixels)
        return Checked(upload.content, header.media_type, header.cost_ms(asked.mode))

    async def _rows(self, request: Request, asked: Query, most: int) -> list[bytes]:
        return await read_rows(request, self._requester, asked.model, most, self._settings.max_upload_bytes)

    def _ask(self, one: "Checked", asked: Query, deadline: Deadline) -> Coroutine[None, None, Reply]:
        return self._requester.request(
            one.content,
            cost_ms=one.cost_ms,
            content_type=one.media_type,
            model=asked.model,
            version=asked.version,
            mode=asked.mode,
            explain=asked.explain,
            top_k=asked.top_k or MOST_LABELS,
            timeout_s=deadline.left_s(),
        )


class CallBudget:
    """Lets the pictures of one call wait for each other when not all of them may be in flight at once."""

    def __init__(self) -> None:
        self._in_flight = 0
        self._landed = asyncio.Event()

    async def spend(self, ask: Callable[[], Awaitable[Reply]]) -> Reply:
        """Ask, and again whenever a picture of this call is answered, if that was what took the room.

        Raises GatewayError; TooManyInFlight if the pictures of others take the room.
        """
        while True:
            self._in_flight += 1
            is_refused = False
            try:
                return await ask()
            except TooManyInFlight:
                is_refused = True
                if self._in_flight == 1:
                    raise
            finally:
                self._in_flight -= 1
                if not is_refused:
                    self._landed.set()
                    self._landed.clear()
            await self._landed.wait()
