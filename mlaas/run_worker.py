"""From settings to a running worker, or several."""

import signal
from functools import partial

from mlaas.connect import connect
from mlaas.memory import give_back_large_buffers
from mlaas.settings import Settings, as_environment
from mlaas.supervisor import Supervisor
from mlaas.up import start_workers, stop_on_signals, watch
from worker.consumer import Consumer
from worker.model_process import IsolatedModel, ModelProcess
from worker.pipe import Role


def run(settings: Settings) -> None:
    """One consumer with its processes, until SIGTERM or SIGINT. Raises ModelUnavailable."""

    def start(role: Role) -> ModelProcess:
        return ModelProcess(
            settings.model,
            timeout_s=settings.worker.model_timeout_ms / 1000,
            start_timeout_s=settings.worker.model_start_timeout_ms / 1000,
            role=role,
        )

    give_back_large_buffers()
    model = IsolatedModel(partial(start, Role.MODEL), partial(start, Role.DECODER))
    consumer = Consumer(
        connect(settings.broker), settings.topics, settings.worker, model, settings.model.max_pixels
    )
    signal.signal(signal.SIGTERM, lambda *_: consumer.stop())
    signal.signal(signal.SIGINT, lambda *_: consumer.stop())
    if settings.worker.metrics_port:
        consumer.metrics.serve(settings.worker.metrics_host, settings.worker.metrics_port)
    consumer.run()


def run_several(settings: Settings) -> None:
    stopping = stop_on_signals()
    supervisor = Supervisor(as_environment(settings))
    try:
        start_workers(supervisor, settings.worker)
        watch(supervisor, stopping)
    finally:
        supervisor.stop("worker", settings.worker.model_timeout_ms / 1000 + 15)
