"""How the gateway runs. Values and reasons: configs/config.yaml."""

from typing import Annotated

import msgspec

Origin = Annotated[str, msgspec.Meta(pattern=r"^(\*|https?://[^/\s]+)$")]
Port = Annotated[int, msgspec.Meta(ge=0, le=65_535)]
PositiveInt = Annotated[int, msgspec.Meta(gt=0)]


class GatewaySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    host: str
    port: Port
    processes: PositiveInt
    metrics_host: str
    metrics_port: Port
    instance_id: str
    api_keys_file: str
    cors_allowed_origins: tuple[Origin, ...]
    reply_timeout_ms: PositiveInt
    worker_silence_ms: PositiveInt
    ping_interval_ms: PositiveInt
    max_in_flight: PositiveInt
    max_in_flight_bytes: PositiveInt
    max_in_flight_cost_ms: PositiveInt
    max_upload_bytes: PositiveInt
    max_pixels: PositiveInt
    max_head_bytes: Annotated[int, msgspec.Meta(ge=1024)]
    head_timeout_ms: PositiveInt
    body_timeout_ms: PositiveInt
    write_timeout_ms: PositiveInt
    max_body_bytes_in_memory: PositiveInt
    max_batch_files: PositiveInt
    max_batch_bytes: PositiveInt
    drain_delay_ms: Annotated[int, msgspec.Meta(ge=0)]
    drain_timeout_ms: PositiveInt
