"""Processes of the last release, replaced one by one by those of this checkout, and back."""

import asyncio
import re
import subprocess
import threading
from functools import partial
from pathlib import Path

from tests.e2e.services import ROOT, status, until
from tests.faults.asking import Client, judge
from tests.faults.outcome import Outcome, none, one_right_answer_each, outcome
from tests.faults.scenarios.gateways import Balancer
from tests.faults.scenarios.jobs import GATEWAYS, PICTURES_EACH, JobClient
from tests.faults.stage import TIMEOUT_S, Stage, under_load

WORKERS = ["worker-1", "worker-2"]
THERE = ["gateway-1", "worker-1", "worker-2", "gateway-2"]
"""New gateways meet old workers, and old gateways new workers."""
BACK = ["gateway-1", "gateway-2", "worker-1", "worker-2"]
JOBS_PER_S = 2


def upgrade(stage: Stage) -> Outcome:
    """Replace each process of the last release, with requests and jobs in flight, and go back."""
    rate, pause_s, jobs = stage.size(200, 40), stage.size(5, 1), stage.size(150, 10)
    version, release = last_release()
    client = Client(TIMEOUT_S)
    pictures = [
        [stage.pictures(job * PICTURES_EACH + number) for number in range(PICTURES_EACH)]
        for job in range(jobs)
    ]
    replaced = 0
    with stage.fleet() as fleet:
        for name in GATEWAYS:
            fleet.gateway(name, release, MLAAS_GATEWAY__INSTANCE_ID=name)
        for name in WORKERS:
            fleet.worker(name, checkout=release)
        fleet.wait_until_ready()
        balancer, job_client = Balancer(fleet, GATEWAYS), JobClient(fleet)
        done = threading.Event()

        def replace_each(over: threading.Event) -> None:
            nonlocal replaced
            for checkout, in_turn in ((ROOT, THERE), (release, BACK)):
                for name in in_turn:
                    fleet.stop(name)
                    fleet.again(name, checkout)
                    if name in GATEWAYS:
                        fleet.wait_until_ready(name)
                    else:
                        fleet.wait_for(name, "is warm")
                        until(partial(answers, f"{fleet.url(name)}/metrics"), name)
                    replaced += 1
                    over.wait(pause_s)
            done.set()

        async def load() -> None:
            async with asyncio.TaskGroup() as both:
                both.create_task(
                    client.drive(balancer, map(stage.pictures, range(1_000_000)), rate, stop=done.is_set)
                )
                both.create_task(job_client.drive(pictures, JOBS_PER_S))

        under_load(load(), replace_each, balancer.poll)
        asyncio.run(job_client.collect())
    judged = judge(client.entries)
    verdicts = [verdict for each in job_client.jobs for verdict in each.verdicts()]
    return outcome(
        [
            *one_right_answer_each(judged, 1.0),
            none("failed requests", judged.errors()),
            none("pictures of jobs not right", sum(verdict != "right" for verdict in verdicts)),
            none("processes not replaced", len(THERE) + len(BACK) - replaced),
        ],
        judged.numbers()
        | {
            "from": version,
            "replaced": replaced,
            "requests_per_s": rate,
            "jobs": jobs,
            "pictures_of_jobs": len(verdicts),
        },
    )


def answers(url: str) -> bool:
    return status(url) == 200


def last_release() -> tuple[str, Path]:
    """The newest released version in the changelog, and a checkout of the commit that released it."""
    found = re.search(r"^## \[(\d[\d.]*)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert found, "CHANGELOG.md names no release"
    folder = ROOT / ".cache" / f"release-{found[1]}"
    if not folder.exists():
        commits = git("log", "--format=%H", f"-S## [{found[1]}]", "--", "CHANGELOG.md").split()
        assert commits, "the history is not here: run git fetch --unshallow"
        git("worktree", "prune")
        git("worktree", "add", "--detach", str(folder), commits[-1])
    return found[1], folder


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout
