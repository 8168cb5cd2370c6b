"""Plant each defect in the running processes; its scenario must fail."""

import sys

from deploy.kafka.jars import missing_tools
from deploy.kafka.local_kafka import LocalKafka
from tests.faults.run import play
from tests.faults.stage import Pictures, Stage

CAUGHT_BY = {
    "acknowledge-before-reply": "worker-kill",
    "acknowledge-before-store": "jobs",
    "no-correlation-check": "cross-talk",
    "no-deadline": "deadline",
    "publish-before-registering": "cross-talk",
}


def main() -> None:
    """Exits with 1 if a scenario passes with a defect, or fails without one."""
    if problem := missing_tools():
        sys.exit(problem)
    unexpected = []
    with LocalKafka() as kafka:
        pictures = Pictures()
        without = [("", name) for name in dict.fromkeys(CAUGHT_BY.values())]
        for defect, name in [*without, *CAUGHT_BY.items()]:
            found = play(name, Stage(kafka.bootstrap_servers, pictures, quick=True, defect=defect))
            print(f"{defect or 'no defect':28}{found}", flush=True)
            if found.passed == bool(defect):
                unexpected.append(f"{name} with {defect or 'no defect'}")
    sys.exit(f"Not as it should be: {', '.join(unexpected)}" if unexpected else 0)


if __name__ == "__main__":
    main()
