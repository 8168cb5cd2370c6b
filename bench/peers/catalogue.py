"""How each peer is started, and what it is sent."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import msgspec

from bench import usage
from bench.environments import python_of
from bench.serving import serving
from bench.systems import System
from mlaas.load.bodies import Body


class Peer(msgspec.Struct, frozen=True):
    """environment: of bench/peers/requirements. paths: by how pictures may be sent to it."""

    environment: str
    module: str
    paths: Mapping[Body, str] = msgspec.field(default_factory=lambda: {"raw": "/predict"})
    variables: Mapping[str, str] = msgspec.field(default_factory=dict)


PEERS: dict[str, Peer] = {
    "Mosec": Peer("mosec", "mosec_server"),
    "LitServe": Peer("litserve", "litserve_server"),
    "BentoML": Peer("bentoml", "bentoml_server", {"json": "/predict"}, {"BENTOML_DO_NOT_TRACK": "True"}),
    "Ray Serve": Peer(
        "ray", "ray_server", variables={"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    ),
    "MLServer": Peer("mlserver", "mlserver_server", {"oip": "/v2/models/fashion/infer"}),
    "FastAPI": Peer("fastapi", "plain_fastapi", {"raw": "/predict", "form": "/form"}),
}


@contextmanager
def peer(name: str, workers: int) -> Iterator[System]:
    """Raises PeerFailed with the reason."""
    chosen = PEERS[name]
    python = python_of(chosen.environment)
    several = ["--workers", str(workers)] if workers > 1 else []
    command = [str(python), "-m", f"bench.peers.{chosen.module}", *several, "--port"]
    body, path = next(iter(chosen.paths.items()))
    with serving(name, command, body=body, path=path, environment=chosen.variables) as started:
        process, port, ready_s = started
        urls = {body: f"http://127.0.0.1:{port}{path}" for body, path in chosen.paths.items()}
        yield System(urls, ready_s, usage.roles(process.pid, {}, "server"))
