"""POST /v2/models/{name}/infer."""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from gateway.answer import raise_failure
from gateway.catalogue import no_such_model
from gateway.deadline import Deadline, read_deadline
from gateway.errors import GatewayError, UnknownModel
from gateway.hang_up import while_connected
from gateway.middleware import traceparent
from gateway.oip import openapi
from gateway.oip.request import Asked, Limits, read
from gateway.oip.response import HEADER_LENGTH, respond
from gateway.oip.tensors import SIDE
from gateway.picture import check
from gateway.png import encode
from gateway.request_reply import Requester
from gateway.settings import GatewaySettings
from gateway.turns import Turns
from messaging.contract import Reply

# Reading more than this takes so long that other requests are not to wait for it.
_LONG_BYTES = 100_000


def router(requester: Requester, settings: GatewaySettings) -> APIRouter:
    routes = APIRouter(tags=["open inference protocol"])

    @routes.post("/v2/models/{name}/infer", **openapi.INFER)
    @routes.post("/v2/models/{name}/versions/{version}/infer", **openapi.VERSIONED_INFER)
    async def infer(request: Request) -> Response:
        """One input, `image`, with all pictures; one row for each in every output.

        `BYTES`: PNG, JPEG or WebP files, base64 in JSON, as they are in binary data. `UINT8` (0 to 255) and
        `FP32` (0 to 1): 28 x 28 grey values, bright clothing on black. Parameters that are understood: `mode`
        (of files, as of `/predict`), `timeout` (microseconds) and `binary_data_output`; of an output
        `binary_data` and `classification`. If one picture cannot be answered, none is: the error says which.
        """
        deadline = read_deadline(request, settings.reply_timeout_ms)
        requester.admit(0, deadline.timeout_s)
        asked = await _read(request, Limits(settings.max_batch_files, settings.max_upload_bytes))
        if asked.timeout_s is not None:
            deadline = replace(deadline, timeout_s=min(deadline.timeout_s, asked.timeout_s))
        async with while_connected(request):
            replies = await _Inference(requester, settings, request, asked, deadline).replies()
        version = request.path_params.get("version", "")
        for reply in replies:
            if version not in ("", reply.version):
                raise UnknownModel(no_such_model(reply.model, version, [f"{reply.model} {reply.version}"]))
        return respond(asked, replies)

    return routes


async def _read(request: Request, limits: Limits) -> Asked:
    content = bytearray()
    async with aclosing(request.stream()) as parts:
        async for part in parts:
            content += part
    header_length = request.headers.get(HEADER_LENGTH)
    if len(content) > _LONG_BYTES:
        return await asyncio.to_thread(read, content, header_length, limits)
    return read(content, header_length, limits)


class _Inference:
    """The pictures of one call, asked for at once; the first error ends all of them."""

    def __init__(
        self,
        requester: Requester,
        settings: GatewaySettings,
        request: Request,
        asked: Asked,
        deadline: Deadline,
    ) -> None:
        self._requester = requester
        self._settings = settings
        self._model = str(request.path_params["name"])
        self._traceparent = traceparent(request.scope)
        self._asked = asked
        self._deadline = deadline
        self._turns = Turns(requester, deadline)

    async def replies(self) -> Sequence[Reply]:
        """Raises GatewayError with the index of the picture."""
        failed: list[GatewayError] = []
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._reply(index, picture))
                    for index, picture in enumerate(self._asked.pictures)
                ]
        except* GatewayError as errors:
            failed = [error for error in errors.exceptions if isinstance(error, GatewayError)]
        if failed:
            raise min(failed, key=lambda error: error.index or 0)
        return [task.result() for task in tasks]

    async def _reply(self, index: int, picture: bytes) -> Reply:
        try:
            return await self._ask(picture)
        except UnknownModel:
            raise  # is not about the picture
        except GatewayError as error:
            error.index = index
            raise

    async def _ask(self, picture: bytes) -> Reply:
        content, media_type = self._as_file(picture)
        async with self._turns.take(len(content)):
            reply = await self._requester.request(
                content,
                content_type=media_type,
                model=self._model,
                mode=self._asked.mode,
                traceparent=self._traceparent,
                timeout_s=self._deadline.left_s(),
            )
        if reply.error is not None:
            raise_failure(reply.error)
        return reply

    def _as_file(self, picture: bytes) -> tuple[bytes, str]:
        if not self._asked.are_files:
            return encode(picture, SIDE), "image/png"
        limits = self._settings
        media_type = check(picture, "", max_bytes=limits.max_upload_bytes, max_pixels=limits.max_pixels)
        return picture, media_type
