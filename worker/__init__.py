"""Turns micro-batches of messages into replies.

The settings are here; configs/config.yaml has their defaults and the reasons for them.
"""

from typing import Annotated

import msgspec

PositiveInt = Annotated[int, msgspec.Meta(gt=0)]


class WorkerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    processes: PositiveInt
    group: Annotated[str, msgspec.Meta(min_length=1)]
    queue: str
    instance_id: str
    more_reply_topics: list[str]
    max_batch_size: PositiveInt
    max_jobs_in_batch: PositiveInt
    max_batch_wait_ms: Annotated[int, msgspec.Meta(ge=0)]
    max_waiting_cost_ms: PositiveInt
    max_waiting_bytes: PositiveInt
    decode_timeout_ms: PositiveInt
    model_timeout_ms: PositiveInt
    model_start_timeout_ms: PositiveInt
    models_poll_ms: PositiveInt
    heartbeat_file: str
    metrics_host: str
    metrics_port: Annotated[int, msgspec.Meta(ge=0, le=65_535)]
