"""Do the scenarios notice defects? Each is planted in the running processes; its scenario must fail."""

import sys

from deploy.kafka.jars import missing_tools
from deploy.kafka.local_kafka import LocalKafka
from tests.faults import report
from tests.faults.pictures import Pictures
from tests.faults.run import play
from tests.faults.stage import Stage

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
        for defect, name in [("", each) for each in dict.fromkeys(CAUGHT_BY.values())] + list(
            CAUGHT_BY.items()
        ):
            found = play(name, Stage(kafka.bootstrap_servers, pictures, quick=True, defect=defect))
            print(f"{defect or 'no defect':28}{report.line(found)}", flush=True)
            if found.passed == bool(defect):
                unexpected.append(f"{name} with {defect or 'no defect'}")
    sys.exit(f"Not as it should be: {', '.join(unexpected)}" if unexpected else 0)


if __name__ == "__main__":
    main()
