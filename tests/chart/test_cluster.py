"""The chart in a Kubernetes: installed, scaled, rolled, drained and uninstalled."""

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import yaml

from tests.chart.cluster import NODES, PATIENCE_S, Cluster
from tests.chart.rendered import EXAMPLES, made, values_of
from tests.chart.tools import CHART, Refused, Resource

pytestmark = pytest.mark.long

RESTRICTED = "pod-security.kubernetes.io/enforce=restricted"
OURS = "app.kubernetes.io/instance=mlaas"
OF_A_NAMESPACE = {"serviceaccount/default", "configmap/kube-root-ca.crt"}
NUMBERS = itertools.count(1)
# For the claim of the gateway's jobs: no machine is here that could make a volume.
VOLUME = {
    "apiVersion": "v1",
    "kind": "PersistentVolume",
    "metadata": {"name": "jobs"},
    "spec": {
        "capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOnce"],
        "hostPath": {"path": "/nowhere"},
    },
}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture
def release(cluster: Cluster) -> "Release":
    return Release(cluster, f"test-{next(NUMBERS)}")


class Release:
    """The chart in a namespace of its own, whose pods must be of the restricted kind."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self._cluster = cluster
        self.namespace = namespace
        self.kubectl("create", "namespace", namespace)
        self.kubectl("label", "namespace", namespace, RESTRICTED)
        for name in OF_A_NAMESPACE:
            self.kubectl("wait", "--for=create", name, f"--timeout={PATIENCE_S}s")

    def kubectl(self, *arguments: str, given: str = "") -> str:
        return self._cluster.kubectl("--namespace", self.namespace, *arguments, given=given)

    def get(self, *arguments: str) -> list[Resource]:
        found: list[Resource] = self._cluster.get("--namespace", self.namespace, *arguments)["items"]
        return found

    def install(self, example: str, *values: str) -> None:
        """Or upgrade. Returns when all pods are of this revision and ready."""
        given = [part for each in values for part in ("--set", each)]
        self._helm("upgrade", "--install", "mlaas", str(CHART), *values_of(example), *given)
        self.until_ready()

    def uninstall(self) -> None:
        self._helm("uninstall", "mlaas")

    def until_ready(self) -> None:
        for name in self.replicas():
            self.kubectl("rollout", "status", "deployment", name, f"--timeout={PATIENCE_S}s")
        self.until(self._has_only_ready_pods, "only the pods that are wanted are there")

    def _has_only_ready_pods(self) -> bool:
        wanted = self.replicas()
        return self.ready_pods() == wanted and len(self.pods()) == sum(wanted.values())

    def replicas(self) -> dict[str, int]:
        """How many pods each Deployment is to have."""
        return {
            its["metadata"]["name"]: its["spec"]["replicas"] for its in self.get("deployments", "-l", OURS)
        }

    def ready_pods(self) -> dict[str, int]:
        """How many ready pods there are of each Deployment, by what their names begin with."""
        ready = [
            its["metadata"]["generateName"].removesuffix(f"{its['metadata']['labels']['pod-template-hash']}-")
            for its in self.pods()
            if {"type": "Ready", "status": "True"}.items() <= _ready(its).items()
        ]
        return {name: ready.count(f"{name}-") for name in self.replicas()}

    def pods(self) -> list[Resource]:
        """Those of Deployments."""
        return self.get("pods", "-l", f"{OURS},pod-template-hash")

    def left(self) -> set[str]:
        """The names of all there is in the namespace, but for events and what each namespace has."""
        kinds = self._cluster.kubectl("api-resources", "--namespaced", "--verbs=list,delete", "--output=name")
        listed = ",".join(set(kinds.split()) - {"events", "events.events.k8s.io"})
        found = self.kubectl("get", listed, "--output=name", "--ignore-not-found").split()
        return set(found) - OF_A_NAMESPACE

    @contextmanager
    def available(self, deployment: str) -> Iterator[list[int]]:
        """How many of its pods are available, with each change until the end of the block."""
        seen: list[int] = []
        shown = 'jsonpath={.status.availableReplicas}{"\\n"}'
        with self._cluster.watching(
            "--namespace", self.namespace, "deployment", deployment, "-o", shown
        ) as watch:
            assert watch.stdout
            watch.stdout.readline()
            try:
                yield seen
            finally:
                watch.terminate()
                seen += [int(line or 0) for line in watch.stdout.read().splitlines()]

    def until(self, is_so: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + PATIENCE_S
        while not is_so():
            assert time.monotonic() < end, f"not after {PATIENCE_S} s: {what}"
            time.sleep(0.2)

    def _helm(self, *arguments: str) -> None:
        self._cluster.helm("--namespace", self.namespace, *arguments)


def _ready(pod: Resource) -> dict[str, Any]:
    return next((its for its in pod["status"].get("conditions", []) if its["type"] == "Ready"), {})


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda name: name or "defaults")
def test_the_server_takes_every_resource_and_knows_every_field(
    example: str, release: Release, shown: Callable[[str, object], None]
) -> None:
    resources = made(example)
    given = yaml.safe_dump_all(
        [its | {"metadata": its["metadata"] | {"namespace": release.namespace}} for its in resources]
    )
    said = release.kubectl("create", "--dry-run=server", "--validate=strict", "-f", "-", given=given)
    assert len(said.splitlines()) == len(resources)
    shown(f"{example or 'defaults'}: resources that the server takes", len(resources))


def test_a_pod_that_could_do_more_would_be_refused(release: Release) -> None:
    (pod,) = (
        its["spec"]["template"]
        for its in made("")
        if its["metadata"]["name"] == "mlaas-worker" and its["kind"] == "Deployment"
    )
    pod["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
    alone = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "alone"}, "spec": pod["spec"]}
    with pytest.raises(Refused, match="allowPrivilegeEscalation"):
        release.kubectl("create", "-f", "-", given=yaml.safe_dump(alone))


def test_it_is_installed_scaled_rolled_drained_and_uninstalled(
    release: Release, shown: Callable[[str, object], None]
) -> None:
    release.kubectl("create", "-f", "-", given=yaml.safe_dump(VOLUME))
    release.install("laptop")
    assert release.ready_pods() == {"mlaas-gateway": 1, "mlaas-worker": 1}
    release.kubectl("wait", "--for=condition=Complete", "job", "--all", f"--timeout={PATIENCE_S}s")
    (slice_of_service,) = release.get("endpointslices", "-l", "kubernetes.io/service-name=mlaas-gateway")
    assert [its["conditions"]["ready"] for its in slice_of_service["endpoints"]] == [True]
    shown("laptop, installed: ready pods", release.ready_pods())

    release.install("laptop", "worker.replicas=3")
    assert release.ready_pods()["mlaas-worker"] == 3
    workers = [its for its in release.pods() if "-worker-" in its["metadata"]["name"]]
    assert len({its["spec"]["nodeName"] for its in workers}) > 1
    shown("laptop, scaled: ready pods", release.ready_pods())

    before = {its["metadata"]["name"] for its in release.pods()}
    with release.available("mlaas-worker") as available:
        release.install("laptop", "worker.replicas=3", "settings.worker.max_batch_size=16")
    assert not before & {its["metadata"]["name"] for its in release.pods()}
    assert available and min(available) >= 3
    shown("laptop, other settings: workers available meanwhile, at least", min(available))

    release.until(lambda: _allowed(release) == {"mlaas-gateway": 1, "mlaas-worker": 1}, "pods may be evicted")
    with release.available("mlaas-worker") as available:
        for number in range(NODES):
            release.kubectl("drain", f"node-{number}", "--delete-emptydir-data", f"--timeout={PATIENCE_S}s")
            release.until_ready()
            release.kubectl("uncordon", f"node-{number}")
    assert available and min(available) >= 2
    shown("laptop, each node drained: workers available meanwhile, at least", min(available))

    release.uninstall()
    release.until(lambda: not release.left(), "nothing is left")
    shown("laptop, uninstalled: resources left", len(release.left()))


def _allowed(release: Release) -> dict[str, int]:
    """How many pods may be evicted of each Deployment."""
    return {its["metadata"]["name"]: its["status"].get("disruptionsAllowed", 0) for its in release.get("pdb")}


def test_queues_scale_by_themselves_come_and_go_and_topics_stay(
    release: Release, shown: Callable[[str, object], None]
) -> None:
    release.install("queues")
    assert release.ready_pods() == {
        "mlaas-gateway": 1,
        "mlaas-worker": 1,
        "mlaas-worker-photos": 1,
        "mlaas-worker-slow": 1,
    }
    release.kubectl("scale", "deployment", "mlaas-worker-photos", "--replicas=3")  # as KEDA does
    release.until_ready()
    with release.available("mlaas-worker-photos") as available:
        release.install("queues", "image.tag=next")
    assert {image(its) for its in release.pods()} == {"mlaas-gateway:next", "mlaas-worker:next"}
    assert release.ready_pods()["mlaas-worker-photos"] == 3
    assert available and min(available) >= 3
    shown("queues, scaled by another and upgraded: ready pods", release.ready_pods())

    topics = {its["spec"]["topicName"] for its in release.get("kafkatopics")}
    assert {"predict.requests.photos", "predict.jobs.photos"} <= topics
    release.install("strimzi")
    assert release.replicas().keys() == {"mlaas-gateway", "mlaas-worker"}
    assert {its["metadata"]["name"] for its in release.get("scaledobjects")} == {
        "mlaas-gateway",
        "mlaas-worker",
    }
    assert {its["spec"]["topicName"] for its in release.get("kafkatopics")} == topics
    shown("queues, without any in the next revision: ready pods", release.ready_pods())

    release.uninstall()
    kept = {f"kafkatopic.kafka.strimzi.io/{its['metadata']['name']}" for its in release.get("kafkatopics")}
    assert len(kept) == len(topics)
    release.until(lambda: release.left() == kept, "only topics are left")
    shown("queues, uninstalled: resources left, all of them topics", len(kept))


def image(pod: Resource) -> str:
    return str(pod["spec"]["containers"][0]["image"])
