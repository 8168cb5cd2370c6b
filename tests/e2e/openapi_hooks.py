"""What schemathesis cannot know from the OpenAPI document: what a picture is, and what depends on time."""

import re
import uuid

import schemathesis
from hypothesis import strategies as st

from messaging.contract import EXPLAINS, MODES
from messaging.picture_header import MEDIA_TYPES
from tests.e2e.services import SAMPLES
from tests.tensor_models import SETOSA

_PICTURES = st.sampled_from([sample.read_bytes() for sample in SAMPLES])

schemathesis.openapi.format("binary", _PICTURES)
for media_type in MEDIA_TYPES:  # the bytes decide, not what they are called
    schemathesis.openapi.media_type(media_type, _PICTURES)


def _is_rows(body) -> bool:
    """Whether the document allows it as rows of numbers."""
    return (
        isinstance(body, dict)
        and body.keys() == {"inputs"}
        and bool(isinstance(body["inputs"], list) and body["inputs"])
    )


@schemathesis.hook
def before_call(context, case, kwargs) -> None:
    """Who waits a millisecond gets a 504, and a key that came with another picture a 422: rightly.

    Which rows are valid depends on the model, so those that the document allows become one for `iris`, which
    gets no pictures.
    """
    headers = case.headers or {}
    if case.path in ("/predict", "/predict/batch", "/jobs") and _is_rows(case.body):
        case.body = {"inputs": [SETOSA]}
        asked = {"model": "iris"} if case.query is None else case.query
        for name, accepted in (("mode", ("", *MODES)), ("explain", EXPLAINS)):
            if asked.get(name) in accepted:
                del asked[name]
        case.query = {**asked, "model": "iris"}
    elif case.query and case.query.get("model") == "iris":
        del case.query["model"]
    if str(headers.get("X-Request-Timeout-Ms", "")).isdigit():
        headers["X-Request-Timeout-Ms"] = "30000" if int(headers["X-Request-Timeout-Ms"]) > 0 else "0"
    if re.fullmatch("[!-~]{1,255}", str(headers.get("Idempotency-Key", ""))):
        headers["Idempotency-Key"] = uuid.uuid4().hex
