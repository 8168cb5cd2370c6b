"""What schemathesis cannot know from the OpenAPI document: what a picture is, and what depends on time."""

import re
import uuid

import schemathesis
from hypothesis import strategies as st

from messaging.picture_header import MEDIA_TYPES
from tests.e2e.services import SAMPLES

_PICTURES = st.sampled_from([sample.read_bytes() for sample in SAMPLES])

schemathesis.openapi.format("binary", _PICTURES)
for media_type in MEDIA_TYPES:  # the bytes decide, not what they are called
    schemathesis.openapi.media_type(media_type, _PICTURES)


@schemathesis.hook
def before_call(context, case, kwargs) -> None:
    """Who waits a millisecond gets a 504, and a key that came with another picture a 422: rightly."""
    headers = case.headers or {}
    if str(headers.get("X-Request-Timeout-Ms", "")).isdigit():
        headers["X-Request-Timeout-Ms"] = "30000" if int(headers["X-Request-Timeout-Ms"]) > 0 else "0"
    if re.fullmatch("[!-~]{1,255}", str(headers.get("Idempotency-Key", ""))):
        headers["Idempotency-Key"] = uuid.uuid4().hex
