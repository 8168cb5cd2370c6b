"""How the gateway runs. Values and reasons: configs/config.yaml."""

from typing import Annotated

import msgspec

PositiveInt = Annotated[int, msgspec.Meta(gt=0)]


class GatewaySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    host: str
    port: Annotated[int, msgspec.Meta(ge=0, le=65_535)]
    instance_id: str
    reply_timeout_ms: PositiveInt
    worker_silence_ms: PositiveInt
    ping_interval_ms: PositiveInt
    max_in_flight: PositiveInt
    max_in_flight_bytes: PositiveInt
    max_upload_bytes: PositiveInt
    max_pixels: PositiveInt
    max_batch_files: PositiveInt
    max_batch_bytes: PositiveInt
    idempotency_keep_ms: PositiveInt
    drain_delay_ms: Annotated[int, msgspec.Meta(ge=0)]
    drain_timeout_ms: PositiveInt
