"""The control plane of a real Kubernetes, with nodes that run nothing.

Go builds it once, from go.mod, into .cache/chart: etcd, the API server, the controllers and the scheduler.
What the kubelet of each node would report of its pods, Nodes reports.
"""

import hashlib
import json
import os
import re
import signal
import ssl
import subprocess
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from ipaddress import ip_network
from pathlib import Path
from threading import Event, Thread
from typing import Any, Self

import httpx
import yaml

from deploy.kafka.local_kafka import CACHE, HOST, free_port
from tests.chart.tools import CUSTOM, NotHere, Refused, Resource, definitions, helm, kubectl, run

SOURCES = [Path(__file__).with_name(name) for name in ("go.mod", "go.sum")]
VERSION = "k8s.io/component-base/version.git"
ETCD = "server"  # the name that Go gives it
NODES = 3
ROOM = {"cpu": "32", "memory": "128Gi", "ephemeral-storage": "1Ti", "pods": "110"}  # of each node
PATIENCE_S = 180
TOKEN = "of-the-administrator"


def _programs() -> Path:
    """The folder for these versions."""
    digest = hashlib.sha256(b"\0".join(file.read_bytes() for file in SOURCES)).hexdigest()[:12]
    return CACHE / "chart" / f"cluster-{digest}"


def build() -> Path:
    """The folder with the programs, which takes a while unless it is there. Raises NotHere."""
    folder = _programs()
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        found = re.search(r"k8s\.io/kubernetes v(\d+)\.(\d+)\.\d+", SOURCES[0].read_text())
        assert found
        version = {"Version": found[0].split()[1], "Major": found[1], "Minor": found[2]}
        flags = " ".join(["-s -w", *(f"-X {VERSION}{name}={value}" for name, value in version.items())])
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            made = Path(scratch, "made")
            command = ["go", "build", "-buildvcs=false", "-ldflags", flags, "-o", f"{made}/", "tool"]
            run(*command, cwd=SOURCES[0].parent)
            if not folder.is_dir():
                made.rename(folder)
    return folder


class Cluster:
    """A context manager. Its files are in a folder; all of it ends with the block."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._kubeconfig = folder / "kubeconfig"
        self._authority = folder / "apiserver.crt"  # which the API server writes
        self._processes: list[subprocess.Popen[bytes]] = []
        self._nodes: Nodes | None = None
        self._logs: dict[int, Path] = {}

    def __enter__(self) -> Self:
        if not _programs().is_dir():
            raise NotHere("make chart-test builds the Kubernetes for this")
        try:
            self._start_all()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._nodes:
            self._nodes.close()
        for process in reversed(self._processes):
            process.send_signal(signal.SIGKILL)  # nothing of it is needed any more
            process.wait()

    def kubectl(self, *arguments: str, given: str = "") -> str:
        """What it prints. given: its standard input. Raises Refused with its reason."""
        return self._ask([kubectl(), *arguments], given)

    def helm(self, *arguments: str) -> str:
        """What it prints. Raises Refused with its reason."""
        return self._ask([helm(), *arguments])

    def get(self, *arguments: str) -> Any:
        return json.loads(self.kubectl("get", "-o", "json", *arguments))

    def watching(self, *arguments: str) -> "subprocess.Popen[str]":
        """A `kubectl get --watch` that prints what changes."""
        command = [kubectl(), "get", "--watch", *arguments]
        return subprocess.Popen(command, env=self._environment, stdout=subprocess.PIPE, text=True)

    def _ask(self, command: list[str], given: str = "") -> str:
        done = subprocess.run(command, env=self._environment, input=given, capture_output=True, text=True)
        if done.returncode:
            raise Refused(done.stderr or done.stdout)
        return done.stdout

    @property
    def _environment(self) -> dict[str, str]:
        return os.environ | {"KUBECONFIG": str(self._kubeconfig), "HELM_CACHE_HOME": str(self._folder)}

    def _start_all(self) -> None:
        clients, peers, server = (free_port() for _ in range(3))
        key, tokens = self._folder / "key", self._folder / "tokens"
        run("openssl", "genrsa", "-out", str(key), "2048")
        tokens.write_text(f"{TOKEN},admin,admin,system:masters\n")
        self._write_kubeconfig(server)
        etcd = f"http://{HOST}:{clients}"
        self._start(
            ETCD,
            f"--data-dir={self._folder / 'etcd'}",
            "--unsafe-no-fsync",
            *(f"--{it}-client-urls={etcd}" for it in ("listen", "advertise")),
            *(f"--{it}-peer-urls=http://{HOST}:{peers}" for it in ("listen", "initial-advertise")),
            f"--initial-cluster=default=http://{HOST}:{peers}",
        )
        self._start(
            "kube-apiserver",
            f"--etcd-servers={etcd}",
            f"--bind-address={HOST}",
            f"--advertise-address={HOST}",
            f"--secure-port={server}",
            f"--cert-dir={self._folder}",
            f"--token-auth-file={tokens}",
            "--authorization-mode=RBAC",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
            "--endpoint-reconciler-type=none",  # there is no network in which others reach it
        )
        self._until(partial(self.kubectl, "get", "--raw", "/readyz"), "the API server is not ready")
        alone = (f"--kubeconfig={self._kubeconfig}", "--leader-elect=false", "--secure-port=0")
        self._start(
            "kube-controller-manager",
            *alone,
            f"--service-account-private-key-file={key}",
            f"--root-ca-file={self._authority}",
            "--node-monitor-grace-period=24h",  # no node says that it lives
        )
        self._start("kube-scheduler", *alone)
        self.kubectl("create", "-f", "-", given=yaml.safe_dump_all(map(_node, range(NODES))))
        self._nodes = Nodes(f"https://{HOST}:{server}", self._authority)
        for group in CUSTOM:
            for file in definitions(group):
                self.kubectl("apply", "--server-side", "-f", str(file))
        for what in ("condition=Ready node", "condition=Established crd"):
            self.kubectl("wait", "--all", f"--timeout={PATIENCE_S}s", "--for", *what.split())

    def _start(self, program: str, *arguments: str) -> None:
        log = self._folder / f"{program}.log"
        with log.open("w") as file:
            command = [str(_programs() / program), *arguments]
            process = subprocess.Popen(command, stdout=file, stderr=file)
        self._processes.append(process)
        self._logs[process.pid] = log

    def _until(self, succeeds: Callable[[], object], what: str) -> None:
        """Tries until there is no Refused. Raises RuntimeError with the end of a log."""
        end = time.monotonic() + PATIENCE_S
        while True:
            try:
                succeeds()
                return
            except Refused as error:
                ended = [its for its in self._processes if its.poll() is not None]
                if ended or time.monotonic() > end:
                    log = self._logs[(ended or self._processes)[-1].pid]
                    raise RuntimeError(f"{what}: {error}{log.name}: {log.read_text()[-2000:]}") from error
            time.sleep(0.2)

    def _write_kubeconfig(self, port: int) -> None:
        server = {
            "server": f"https://{HOST}:{port}",
            "certificate-authority": str(self._authority),
        }
        context = {"cluster": "here", "user": "admin"}
        whole = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "here", "cluster": server}],
            "users": [{"name": "admin", "user": {"token": TOKEN}}],
            "contexts": [{"name": "here", "context": context}],
            "current-context": "here",
        }
        self._kubeconfig.write_text(yaml.safe_dump(whole))


class Nodes:
    """They report each of their pods as ready, or as succeeded if it is to end, and remove those that go."""

    def __init__(self, server: str, authority: Path) -> None:
        trust = ssl.create_default_context(cafile=authority)
        self._client = httpx.Client(
            base_url=server, verify=trust, headers={"Authorization": f"Bearer {TOKEN}"}
        )
        self._addresses = (str(it) for it in ip_network("10.1.0.0/16").hosts())
        self._ends = Event()
        self._thread = Thread(target=self._run)
        self._thread.start()

    def close(self) -> None:
        self._ends.set()
        self._thread.join()
        self._client.close()

    def _run(self) -> None:
        while not self._ends.wait(0.1):
            found = self._client.get("/api/v1/pods", params={"fieldSelector": "spec.nodeName!="})
            for pod in found.raise_for_status().json()["items"]:
                self._report(pod)

    def _report(self, pod: Resource) -> None:
        path = f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}"
        if "deletionTimestamp" in pod["metadata"]:
            answer = self._client.delete(path, params={"gracePeriodSeconds": 0})
        elif pod["status"]["phase"] == "Pending":
            status = _status(pod, next(self._addresses), datetime.now(UTC))
            headers = {"Content-Type": "application/strategic-merge-patch+json"}
            answer = self._client.patch(f"{path}/status", json={"status": status}, headers=headers)
        else:
            return
        if answer.status_code != httpx.codes.NOT_FOUND:  # it is gone meanwhile
            answer.raise_for_status()


def _status(pod: Resource, address: str, now: datetime) -> dict[str, Any]:
    """That of a pod whose containers have started, and ended if they are to."""
    ends = pod["spec"]["restartPolicy"] != "Always"
    at = f"{now:%Y-%m-%dT%H:%M:%SZ}"
    states = {"Initialized": True, "ContainersReady": not ends, "Ready": not ends}
    return {
        "phase": "Succeeded" if ends else "Running",
        "startTime": at,
        "podIP": address,
        "podIPs": [{"ip": address}],
        "conditions": [_condition(kind, holds, at) for kind, holds in states.items()],
    }


def _condition(kind: str, holds: bool, at: str) -> dict[str, str]:
    return {"type": kind, "status": str(holds), "lastTransitionTime": at}


def _node(number: int) -> dict[str, Any]:
    name = f"node-{number}"
    labels = {"kubernetes.io/hostname": name, "topology.kubernetes.io/zone": f"zone-{number}"}
    status = {
        "capacity": ROOM,
        "allocatable": ROOM,
        "conditions": [{"type": "Ready", "status": "True"}],
    }
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "status": status,
    }


if __name__ == "__main__":
    print(build())
