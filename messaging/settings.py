"""The settings that gateway and worker must agree on. Defaults and reasons: configs/config.yaml."""

from typing import Annotated

import msgspec

PositiveInt = Annotated[int, msgspec.Meta(gt=0)]
TopicName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._-]{1,249}$")]


class BrokerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    url: str
    max_message_bytes: PositiveInt
    publish_timeout_ms: PositiveInt


class TopicSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    requests: TopicName
    replies: TopicName
    dead_letters: TopicName
    cancellations: TopicName
    jobs: TopicName
    job_replies: TopicName
    partitions: PositiveInt
    replication_factor: Annotated[int, msgspec.Meta(ge=0)]
    requests_retention_ms: PositiveInt
    replies_retention_ms: PositiveInt
    dead_letters_retention_ms: PositiveInt
    jobs_retention_ms: PositiveInt
