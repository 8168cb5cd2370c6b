"""What schemathesis is to send as pictures: it knows their type, not what they look like."""

import schemathesis
from hypothesis import strategies as st

from tests.e2e.services import SAMPLES

_PNG = [sample.read_bytes() for sample in SAMPLES]

schemathesis.openapi.format("binary", st.sampled_from(_PNG))
schemathesis.openapi.media_type("image/png", st.sampled_from(_PNG))
