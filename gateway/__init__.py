"""Turns HTTP into a message and a reply into HTTP.

The settings are here; configs/config.yaml has their defaults and the reasons for them.
"""

from typing import Annotated

import msgspec

Origin = Annotated[str, msgspec.Meta(pattern=r"^(\*|https?://[^/\s]+)$")]
Port = Annotated[int, msgspec.Meta(ge=0, le=65_535)]
PositiveInt = Annotated[int, msgspec.Meta(gt=0)]

OTHER_STORE = "jobs.store must begin with sqlite:/// (gateways on one machine) or postgresql:// (on several)"


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


class JobSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    store: str
    store_timeout_ms: PositiveInt
    group: Annotated[str, msgspec.Meta(min_length=1)]
    deadline_ms: PositiveInt
    keep_ms: PositiveInt
    max_pictures: Annotated[int, msgspec.Meta(gt=0, le=100_000)]
    max_bytes: PositiveInt
    max_unfinished_pictures: PositiveInt
    max_unfinished_bytes: PositiveInt
    max_wait_ms: PositiveInt
    poll_interval_ms: PositiveInt
    heartbeat_ms: PositiveInt
    sweep_interval_ms: PositiveInt

    def __post_init__(self) -> None:
        if not self.store.startswith(("sqlite:///", "postgresql://", "postgres://")):
            raise ValueError(OTHER_STORE)
        if self.keep_ms < self.deadline_ms:
            raise ValueError("keep_ms is below deadline_ms: results would be deleted before the job is over")
