import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from gateway.server import listen, serve
from messaging.broker import ClientBroken
from messaging.memory import MemoryBroker, MemoryInbox
from mlaas.settings import load


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("error", [KeyError, ClientBroken])
def test_a_gateway_ends_when_it_cannot_read_replies_any_more(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: type[Exception]
) -> None:
    """Else it would take requests that nobody answers; whoever started it starts it again."""

    def receive(self: MemoryInbox, *_: object) -> None:
        raise error("nobody can mend this")

    monkeypatch.setattr(MemoryInbox, "receive", receive)
    settings = load(
        None, {}, [("jobs.store", f"sqlite:///{tmp_path}/jobs.sqlite3"), ("gateway.drain_delay_ms", 0)]
    )
    gateway = replace(settings.gateway, port=0)
    with listen(gateway) as listener, pytest.raises(error, match="nobody can mend this"):
        serve(listener, MemoryBroker(), settings.topics, gateway, settings.jobs, "0")
