"""mlaas with planted defects or another model: `python -m tests.faults.planted DEFECT[+DEFECT] worker …`.

The self-test shows that scenarios notice the defects, which patch classes of this process only.
"""

import asyncio
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any


def acknowledge_before_reply() -> None:
    """Commits often, since a kill before the next automatic commit would hide the defect."""
    from messaging import kafka_config

    kafka_config.CONSUMER["auto.commit.interval.ms"] = 50

    from worker.outbox import Outbox

    reply = Outbox.reply

    def hasty(self: Outbox, delivery: Any, *arguments: Any, **named: Any) -> None:
        self.drop([delivery])
        reply(self, delivery, *arguments, **named)

    from worker.answering import Answerer

    answer = Answerer.answer

    def hasty_answer(self: Answerer, batch: Any) -> None:
        self._outbox.drop([each.delivery for each in batch.queued])
        answer(self, batch)

    Outbox.reply = hasty  # type: ignore[method-assign]
    Answerer.answer = hasty_answer  # type: ignore[method-assign]


def no_correlation_check() -> None:
    """Nor does the gateway compare the digest of the picture."""
    from gateway.pending import Pending
    from messaging import codec

    resolve = Pending.resolve

    def careless(self: Pending, correlation_id: str, message: Any) -> bool:
        reply = codec.decode_reply(message)
        waiting = [waiter for waiter in self._waiters.values() if not waiter.reply.done()]
        if not waiting or reply.models:  # the reply to a ping
            return resolve(self, correlation_id, message)
        waiting[0].reply.set_result(reply)
        return True

    Pending.resolve = careless  # type: ignore[method-assign]


def no_deadline() -> None:
    real = asyncio.timeout
    asyncio.timeout = lambda delay: real(None)  # type: ignore[assignment]


def publish_before_registering() -> None:
    from gateway.pending import Pending

    waiter = Pending.waiter

    @contextmanager
    def late(self: Pending, correlation_id: str, *arguments: Any) -> Iterator["asyncio.Future[Any]"]:
        with waiter(self, correlation_id, *arguments) as reply:
            registered = self._waiters.pop(correlation_id)
            register = partial(self._waiters.__setitem__, correlation_id, registered)
            timer = asyncio.get_running_loop().call_later(0.05, register)
            try:
                yield reply
            finally:
                timer.cancel()
                register()

    Pending.waiter = late  # type: ignore[method-assign]


def acknowledge_before_store() -> None:
    from gateway.jobs.collector import Collector

    save = Collector._save

    def later(self: Collector, deliveries: Any) -> None:
        storing = threading.Timer(6.0, save, [self, deliveries])
        storing.daemon = True
        storing.start()

    Collector._save = later  # type: ignore[method-assign]


def slow_model() -> None:
    """Not a defect. Batches take long, so that kills interrupt work."""
    _paced_model(batch_s=1.2, picture_s=0.0)


def leisurely_model() -> None:
    """Not a defect. One gateway and client can overload it and have processor time left."""
    _paced_model(batch_s=0.0, picture_s=0.003)


def one_slow_model() -> None:
    """Not a defect. Of its models, that of PACED_MODEL takes PACED_PICTURE_S for each picture."""
    _paced_model(batch_s=0.0, picture_s=float(os.environ["PACED_PICTURE_S"]))


def _paced_model(batch_s: float, picture_s: float) -> None:
    os.environ |= {"PACED_BATCH_S": str(batch_s), "PACED_PICTURE_S": str(picture_s)}
    _model_process("tests.faults.paced_model")


def fragile_model() -> None:
    """Not a defect. Two kinds of pictures crash or hang it."""
    _model_process("tests.fragile_model")


def simulated_model() -> None:
    """Not a defect. It takes time but no processor, for many workers on few cores."""
    _model_process("bench.simulated_model")


def _model_process(module: str) -> None:
    """Have the consumer start `python -m MODULE …`."""
    from worker.model_process import ModelProcess

    assert ModelProcess.__init__.__kwdefaults__
    ModelProcess.__init__.__kwdefaults__["module"] = module


DEFECTS: dict[str, Callable[[], None]] = {
    "acknowledge-before-reply": acknowledge_before_reply,
    "acknowledge-before-store": acknowledge_before_store,
    "no-correlation-check": no_correlation_check,
    "no-deadline": no_deadline,
    "publish-before-registering": publish_before_registering,
    "slow-model": slow_model,
    "leisurely-model": leisurely_model,
    "one-slow-model": one_slow_model,
    "fragile-model": fragile_model,
    "simulated-model": simulated_model,
}


def main() -> None:
    for defect in sys.argv[1].split("+"):
        DEFECTS[defect]()
    from mlaas.cli import main as mlaas

    sys.argv[1:2] = []
    mlaas()


if __name__ == "__main__":
    main()
