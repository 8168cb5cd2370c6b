"""How jobs are kept. Values and reasons: configs/config.yaml."""

from typing import Annotated

import msgspec

PositiveInt = Annotated[int, msgspec.Meta(gt=0)]

STORES = ("sqlite:///", "postgresql://", "postgres://")
OTHER_SCHEME = "jobs.store must begin with sqlite:/// (gateways on one machine) or postgresql:// (on several)"


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
        if not self.store.startswith(STORES):
            raise ValueError(OTHER_SCHEME)
        if self.keep_ms < self.deadline_ms:
            raise ValueError("keep_ms is below deadline_ms: results would go before the job is over")
