"""The routes below /v2: health, metadata and inference."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from time import monotonic

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from gateway import GatewaySettings, errors, openapi
from gateway.answer import grey_png, raise_failure
from gateway.asked import Deadline, check, read_deadline
from gateway.body import body_of_form, while_connected
from gateway.errors import GatewayError, InvalidRequest, Unavailable, UnknownModel
from gateway.middleware import PROBE, RouteFacts, Router
from gateway.models import heard, named
from gateway.oip.request import InferenceRequest, Limits, read
from gateway.oip.response import (
    EXTENSIONS,
    HEADER_LENGTH,
    Error,
    IndexEntry,
    InferenceResponse,
    Live,
    ModelMetadata,
    ModelReady,
    Ready,
    Server,
    describe,
    index_of,
    respond,
)
from gateway.predict import CallBudget
from gateway.problem import ErrorForm
from gateway.request_reply import Requester
from gateway.tensors import SIDE
from messaging.codec import NOT_JSON
from messaging.contract import TENSOR, Reply, ServedModel

_MOST_INDEX_BYTES = 1_000
# Parsing a longer body would noticeably delay other requests.
_LONG_BYTES = 100_000

# A PNG of one black pixel.
_BLACK = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="


class _IndexQuery(msgspec.Struct, frozen=True):
    """ready: only versions that are READY."""

    ready: bool = False


TYPES = (Error, Server, Live, Ready, ModelReady, ModelMetadata, IndexEntry, InferenceResponse)

_PARAMETERS = {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}}
_NAMED = {"name": {"type": "string"}, "parameters": _PARAMETERS}
_BODY = {
    "type": "object",
    "required": ["inputs"],
    "properties": {
        "id": {"type": "string"},
        "parameters": _PARAMETERS,
        "inputs": {
            "type": "array",
            "minItems": 1,
            "maxItems": 1,
            "items": {
                "type": "object",
                "required": ["name", "datatype", "shape"],
                "properties": {
                    **_NAMED,
                    "datatype": {"enum": ["UINT8", "FP32", "BYTES"]},
                    "shape": {"type": "array", "items": {"type": "integer"}},
                    "data": {"type": "array", "items": {}},
                },
            },
        },
        "outputs": {"type": "array", "items": {"type": "object", "required": ["name"], "properties": _NAMED}},
    },
}
_OUTPUTS = [{"name": "label"}, {"name": "class"}]
_PIXELS = {"name": "image", "datatype": "UINT8", "shape": [1, 784], "data": 784 * [0]}
_FILE = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [_BLACK]}
_EXAMPLES = {
    "pixels": {
        "summary": "28 x 28 grey values, all of them black",
        "value": {"id": "42", "inputs": [_PIXELS], "outputs": _OUTPUTS},
    },
    "file": {
        "summary": "A picture file in base64",
        "value": {"inputs": [_FILE], "outputs": _OUTPUTS, "parameters": {"mode": "auto"}},
    },
}
_BINARY = {"schema": openapi.BINARY}
_REQUEST_BODY = {
    "required": True,
    "content": {
        "application/json": {"schema": _BODY, "examples": _EXAMPLES},
        "application/octet-stream": _BINARY,
    },
}
_NAME = openapi.path_parameter("name", "fashion-mnist")
_VERSION = openapi.path_parameter("version", "1.4.0")
_LENGTH = openapi.header_parameter(
    HEADER_LENGTH, "The size of the JSON in bytes, if binary data follows it.", type="integer"
)
_INDEX_BODY: openapi.Tree = {
    "required": False,
    "content": {
        "application/json": {"schema": {"type": "object", "properties": {"ready": {"type": "boolean"}}}}
    },
}
_NO_WORKER = (errors.TooManyInFlight, errors.GatewayError, errors.Unavailable, errors.ReplyTimeout)
_OF_MODELS = (errors.UnknownModel, *_NO_WORKER)
_OF_PICTURES = (
    errors.InvalidRequest,
    errors.NotAPicture,
    errors.TooLarge,
    errors.SlowBody,
    errors.UnacceptedCoding,
)


def respond_error(status: int, detail: str, headers: Mapping[str, str]) -> Response:
    """In the protocol's form, which has no 422."""
    return Response(msgspec.json.encode(Error(detail)), _status(status), headers, "application/json")


def problems(*kinds: type[GatewayError]) -> openapi.Responses:
    """The OpenAPI responses for these errors, in the protocol's form."""
    return openapi.by_status(kinds, "application/json", openapi.reference(Error), _example, _status)


def _status(status: int) -> int:
    return 400 if status == 422 else status


def _example(kind: type[GatewayError]) -> Error:
    details = {
        **openapi.DETAILS,
        errors.InvalidRequest: "unknown output 'labels'; known: probabilities, label, class",
    }
    return Error(details[kind])


ERRORS = ErrorForm("/v2/", respond_error, problems)


class InferenceRoutes:
    def __init__(self, requester: Requester, settings: GatewaySettings, version: str) -> None:
        """version is that of the service."""
        self._requester = requester
        self._settings = settings
        self._version = version

    def router(self) -> Router:
        router = Router(tags=["open inference protocol"])
        router.add(
            "GET", "/v2", self.server, summary="Describe the server", responses={200: openapi.answer(Server)}
        )
        router.add("GET", "/v2/", self.server, include_in_schema=False)
        for path, endpoint, kind, summary in (
            ("/v2/health/live", self.live, Live, "Is the process alive?"),
            ("/v2/health/ready", self.ready, Ready, "Would pictures be answered?"),
        ):
            router.add(
                "GET",
                path,
                endpoint,
                PROBE,
                summary=summary,
                responses={200: openapi.answer(kind), 503: openapi.answer(kind, "The reason why not")},
            )
        of_inference = {200: openapi.answer(InferenceResponse), **problems(*_OF_PICTURES, *_OF_MODELS)}
        of_inference[200]["content"]["application/octet-stream"] = _BINARY
        for middle, of_which, parameters in (
            ("", "a model", [_NAME]),
            ("/versions/{version}", "a version of a model", [_NAME, _VERSION]),
        ):
            named = {"parameters": parameters}
            router.add(
                "GET",
                "/v2/models/{name}" + middle,
                self.model,
                summary=f"Describe {of_which}",
                responses={200: openapi.answer(ModelMetadata), **problems(*_OF_MODELS)},
                openapi_extra=named,
            )
            router.add(
                "GET",
                "/v2/models/{name}" + middle + "/ready",
                self.model_ready,
                summary=f"Would {of_which} answer?",
                responses={200: openapi.answer(ModelReady), **problems(*_OF_MODELS)},
                openapi_extra=named,
            )
            inferring = {"parameters": [*parameters, _LENGTH, openapi.TIMEOUT], "requestBody": _REQUEST_BODY}
            router.add(
                "POST",
                "/v2/models/{name}" + middle + "/infer",
                self.infer,
                RouteFacts(body=body_of_form(self._settings.max_batch_bytes, "gateway.max_batch_bytes")),
                summary=f"Classify pictures by {of_which}",
                responses=of_inference,
                openapi_extra=inferring,
            )
        self._add_repository(router)
        return router

    def _add_repository(self, router: Router) -> None:
        indexed = openapi.answer(IndexEntry, "The versions that the workers serve")
        schema = indexed["content"]["application/json"]
        schema["schema"] = {"type": "array", "items": schema["schema"]}
        router.add(
            "POST",
            "/v2/repository/index",
            self.index,
            summary="List the models",
            responses={200: indexed, **problems(errors.InvalidRequest, *_NO_WORKER)},
            openapi_extra={"requestBody": _INDEX_BODY},
        )
        for verb, endpoint, responses in (
            ("load", self.load, {200: {"description": "A worker serves it"}, **problems(*_OF_MODELS)}),
            ("unload", self.unload, problems(errors.InvalidRequest, *_OF_MODELS)),
        ):
            router.add(
                "POST",
                f"/v2/repository/models/{{name}}/{verb}",
                endpoint,
                summary=f"{verb.capitalize()} a model",
                responses=responses,
                openapi_extra={"parameters": [_NAME]},
            )

    async def index(self, request: Request) -> Response:
        """The versions that workers serve or should. `{"ready": true}` leaves out what would not answer."""
        content = await request.body()
        if len(content) > _MOST_INDEX_BYTES:
            raise InvalidRequest(
                f"the body has {len(content)} bytes; at most {_MOST_INDEX_BYTES} are accepted"
            )
        try:
            only_ready = bool(content) and msgspec.json.decode(content, type=_IndexQuery).ready
        except NOT_JSON as error:
            raise InvalidRequest(f'the body is not JSON such as {{"ready": true}}: {error}') from error
        await heard(self._requester)
        entries = [
            entry
            for model in self._requester.presence.listed(monotonic())
            for entry in index_of(model, self._requester.why_not_ready(model.name))
            if entry.state == "READY" or not only_ready
        ]
        return Response(msgspec.json.encode(entries), media_type="application/json")

    async def load(self, request: Request) -> Response:
        """200 for a model that is served. Others are served once the workers have their folders."""
        await self._find(request)
        return Response(b"{}", media_type="application/json")

    async def unload(self, request: Request) -> Response:
        """Refused: the workers serve the models whose folders they have."""
        model = await self._find(request)
        raise InvalidRequest(
            f"{model.name} is served because the workers have its folder: remove it, or list the others in "
            "model.names and start the workers again"
        )

    async def server(self) -> Response:
        """Name, version and supported protocol extensions."""
        return _json(Server("mlaas", self._version, EXTENSIONS))

    async def live(self) -> Response:
        """503 only if a restart would help."""
        if self._requester.alive:
            return _json(Live(True))
        return _unavailable(Live(False, "the thread that reads replies has stopped; restart the gateway"))

    async def ready(self) -> Response:
        """200 while pictures sent now would be answered."""
        reason = self._requester.why_not_ready()
        return _json(Ready(True)) if reason is None else _unavailable(Ready(False, reason))

    async def model(self, request: Request) -> Response:
        """Inputs, outputs, labels. The `parameters` of an input explain its values."""
        return _json(describe(await self._find(request)))

    async def model_ready(self, request: Request) -> Response:
        """200 while this model would answer pictures sent now."""
        model = await self._find(request)
        reason = self._requester.why_not_ready(model.name)
        if reason is not None:
            raise Unavailable(reason)
        return _json(ModelReady(model.name, True))

    async def infer(self, request: Request) -> Response:
        """The input `image` has all pictures, or `tensor` all rows; every output has one row for each.

        `tensor`: the input of the network, in the shape and datatype that the model's metadata has. `image`:
        `BYTES`: picture files, in base64 in JSON, raw in binary data. `UINT8` (0 to 255) and `FP32`
        (0 to 1): 28 x 28 grey values, bright clothing on black. Parameters: `mode` (for files, as in
        `/predict`), `timeout` (microseconds) and `binary_data_output`; of an output, `binary_data` and
        `classification`. If one picture fails, the whole request fails, and the error names the picture.
        """
        settings = self._settings
        deadline = read_deadline(request, settings.reply_timeout_ms)
        name = request.path_params["name"]
        self._requester.admit(name, 0, 0.0, deadline.timeout_s)
        limits = Limits(settings.max_batch_files, settings.max_upload_bytes)
        wanted = await _read(request, self._known(name), limits)
        if wanted.timeout_s is not None:
            deadline = replace(deadline, timeout_s=min(deadline.timeout_s, wanted.timeout_s))
        async with while_connected(request):
            replies = await _Inference(self._requester, settings, request, wanted, deadline).replies()
        return respond(wanted, replies)

    def _known(self, name: str) -> ServedModel:
        """The model; one of clothing, if no worker has reported it, as older ones do not."""
        known = self._requester.presence.channel_of(name).catalogue.models
        return next((model for model in known if model.name == name), ServedModel(name=name, version=""))

    async def _find(self, request: Request) -> ServedModel:
        asked = request.path_params
        return await named(self._requester, asked["name"], asked.get("version", ""))


async def _read(request: Request, model: ServedModel, limits: Limits) -> InferenceRequest:
    content = bytearray()
    async with aclosing(request.stream()) as parts:
        async for part in parts:
            content += part
    header_length = request.headers.get(HEADER_LENGTH)
    if len(content) > _LONG_BYTES:
        return await asyncio.to_thread(read, content, header_length, model, limits)
    return read(content, header_length, model, limits)


@dataclass
class _Inference:
    """Requests all rows of a call at once: pictures or tensors. The first error cancels the rest."""

    requester: Requester
    settings: GatewaySettings
    http: Request
    request: InferenceRequest
    deadline: Deadline

    def __post_init__(self) -> None:
        self.model = str(self.http.path_params["name"])
        self.budget = CallBudget()

    async def replies(self) -> Sequence[Reply]:
        """Raises GatewayError with the index of its row."""
        failed: list[BaseException] = []
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._reply(index, row)) for index, row in enumerate(self.request.rows)
                ]
        except* GatewayError as raised:
            failed = [*raised.exceptions]
        if failed:
            raise min(failed, key=lambda error: getattr(error, "index", None) or 0)
        return [task.result() for task in tasks]

    async def _reply(self, index: int, row: bytes) -> Reply:
        try:
            return await self._ask(row)
        except UnknownModel:
            raise  # concerns the whole request
        except GatewayError as error:
            error.index = index
            raise

    async def _ask(self, row: bytes) -> Reply:
        content, media_type, cost_ms = self._as_sent(row)
        reply = await self.budget.spend(
            lambda: self.requester.request(
                content,
                cost_ms=cost_ms,
                content_type=media_type,
                model=self.model,
                version=str(self.http.path_params.get("version", "")),
                mode=self.request.mode,
                timeout_s=self.deadline.left_s(),
            )
        )
        if reply.error is not None:
            raise_failure(reply.error)
        return reply

    def _as_sent(self, row: bytes) -> tuple[bytes, str, float]:
        """The body of the message to the workers, its media type and its cost in milliseconds."""
        if self.request.form == "tensor":
            return row, TENSOR, 0.0
        content = row if self.request.form == "file" else grey_png(row, SIDE)
        settings = self.settings
        header = check(content, "", max_bytes=settings.max_upload_bytes, max_pixels=settings.max_pixels)
        return content, header.media_type, header.cost_ms(self.request.mode)


def _json(body: msgspec.Struct, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(body), status, headers, "application/json")


def _unavailable(body: msgspec.Struct) -> Response:
    return _json(body, 503, {"Retry-After": str(Unavailable.retry_after_s)})
