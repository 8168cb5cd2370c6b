"""Plant each defect in the running processes; its scenario must fail."""

import sys

from deploy.kafka.local_kafka import LocalKafka, missing_tools
from tests.faults.run import play
from tests.faults.stage import Pictures, Stage

CAUGHT_BY = {
    "acknowledge-before-reply": ("worker-kill", "answered 200, share"),
    "acknowledge-before-store": ("jobs", "lost"),
    "no-correlation-check": ("cross-talk", "wrong"),
    "no-deadline": ("deadline", "answered 504, share"),
    "publish-before-registering": ("cross-talk", "answered 200, share"),
}
"""The scenario that notices each defect, and a check that must fail."""


def main() -> None:
    """Exits with 1 unless the scenarios pass without defects, and the right check fails with each."""
    if problem := missing_tools():
        sys.exit(problem)
    without = dict.fromkeys((scenario, "") for scenario, _ in CAUGHT_BY.values())
    cases = [("", case) for case in without] + list(CAUGHT_BY.items())
    unexpected = []
    with LocalKafka() as kafka:
        pictures = Pictures()
        for defect, (scenario, check) in cases:
            found = play(scenario, Stage(kafka.bootstrap_servers, pictures, quick=True, defect=defect))
            print(f"{defect or 'no defect':28}{found}", flush=True)
            failed = [each.name for each in found.checks if not each.passed]
            if (check not in failed) if defect else failed:
                unexpected.append(f"{scenario} with {defect or 'no defect'}: {failed}")
    sys.exit(f"unexpected: {'; '.join(unexpected)}" if unexpected else 0)


if __name__ == "__main__":
    main()
