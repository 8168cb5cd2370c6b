"""Each queue of models has workers of its own, which scale with what waits in it."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.metrics import GatewayMetrics
from messaging import SHARED
from mlaas.up import shares
from tests.chart.rendered import made, of, settings_of

# Queues.


def test_each_queue_has_workers_that_serve_its_models_and_no_others(
    tmp_path: Path, shown: Callable[[str, object], None]
) -> None:
    resources = made("queues")
    for part, queue, models in (
        ("worker", SHARED, []),
        ("worker-photos", "photos", ["clothing-photo", "portraits"]),
        ("worker-slow", "slow", ["large"]),
    ):
        settings = settings_of(resources, part, tmp_path)
        assert {its.name: names for its, names in shares(settings).items()} == {queue: models}
        shown(f"the queue {queue}: what its workers serve", ", ".join(models) or "all other models")
    gateway = settings_of(resources, "gateway", tmp_path)
    assert [queue.name for queue in gateway.topics.all_queues()] == [SHARED, "photos", "slow"]


def test_the_workers_of_a_queue_differ_where_its_values_do() -> None:
    deployments = of("Deployment", made("queues", "--set", "scaling.by=none,worker.queues.slow.replicas=0"))
    pods_of = {
        name: deployments[name]["spec"]["template"]["spec"] for name in deployments if "worker" in name
    }
    memory = {name: its["containers"][0]["resources"]["limits"]["memory"] for name, its in pods_of.items()}
    assert memory == {"mlaas-worker": "1Gi", "mlaas-worker-photos": "2Gi", "mlaas-worker-slow": "1Gi"}
    assert {name: deployments[name]["spec"]["replicas"] for name in pods_of} == {
        "mlaas-worker": 1,
        "mlaas-worker-photos": 1,
        "mlaas-worker-slow": 0,
    }
    volumes = {
        name: [its for its in pod["volumes"] if its["name"] == "models"] for name, pod in pods_of.items()
    }
    assert volumes == {
        "mlaas-worker": [],
        "mlaas-worker-photos": [{"name": "models", "image": {"reference": "photo-models:3"}}],
        "mlaas-worker-slow": [],
    }


def test_all_queues_take_their_models_from_the_same_place_unless_they_have_one() -> None:
    fetch = "worker.models.fetch.image=all-models,worker.models.fetch.command={cp,-r,/m,/models}"
    deployments = of("Deployment", made("queues", "--set", fetch))
    fetching = {
        name for name, its in deployments.items() if "initContainers" in its["spec"]["template"]["spec"]
    }
    assert fetching == {"mlaas-worker", "mlaas-worker-slow"}


# Scaling.


@pytest.mark.parametrize("example", ["strimzi", "queues"])
def test_workers_scale_with_what_is_in_flight_in_their_queue_and_jobs_up_to_the_partitions(
    example: str, tmp_path: Path
) -> None:
    resources = made(example)
    settings = settings_of(resources, "worker", tmp_path)
    metrics = {its.name: its for its in GatewayMetrics().declared}
    for queue in settings.topics.all_queues():
        name = "mlaas-worker" if queue.name == SHARED else f"mlaas-worker-{queue.name}"
        spec = of("ScaledObject", resources)[name]["spec"]
        most, batch = (
            (4, 4) if queue.name == "photos" else (settings.topics.partitions, settings.worker.max_batch_size)
        )
        assert spec["maxReplicaCount"] == most
        in_flight, lag = (trigger["metadata"] for trigger in spec["triggers"])
        assert int(in_flight["threshold"]) == batch
        ((metric, label),) = re.findall(r'sum\((\w+)\{.*, queue="(.+)"\}\)', in_flight["query"])
        assert "queue" in metrics[metric].labels
        assert label == queue.name
        assert (lag["topic"], lag["consumerGroup"]) == (queue.jobs, queue.groups(settings.worker.group)[1])
        assert f"kafka://{lag['bootstrapServers']}" in settings.broker.url.replace("mlaas-worker:secret@", "")


def test_where_something_scales_it_alone_says_how_many() -> None:
    for example in ("strimzi", "without-keda", "queues"):
        resources = made(example)
        assert all("replicas" not in its["spec"] for its in of("Deployment", resources).values())
        scaled = of("ScaledObject", resources) or of("HorizontalPodAutoscaler", resources)
        targets = {its["spec"]["scaleTargetRef"]["name"] for its in scaled.values()}
        assert targets == of("Deployment", resources).keys()
    assert all(its["spec"]["replicas"] == 1 for its in of("Deployment", made("")).values())
