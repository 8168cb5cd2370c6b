"""What comes in: requests that somebody waits for, and pictures of jobs."""

from collections.abc import Iterable, Sequence

from messaging.broker import Broker, BrokerError, ClientBroken, Delivery, Subscription

# As long as neither was there: how late a job's picture may be noticed.
_LONGEST_WAIT_S = 0.05


class Intake:
    """Two subscriptions as one. Jobs have a share of what is taken, and requests all that is left.

    So neither waits behind the other. One client that reads both topics fetches most of the longer one.
    """

    def __init__(self, broker: Broker, requests: str, jobs: str, group: str, instance_id: str) -> None:
        """Raises BrokerError."""
        self._jobs_topic = jobs
        self._requests = broker.subscribe(requests, group, instance_id)
        try:
            self._jobs: Subscription = broker.subscribe(jobs, f"{group}.jobs", instance_id)
        except BrokerError:
            self._requests.close()
            raise

    def receive(self, max_messages: int, timeout: float, most_jobs: int) -> Sequence[Delivery]:
        """As Subscription.receive; where there are jobs, it does not wait for requests.

        Of less than two messages requests are the first.
        """
        share = min(most_jobs, max_messages // 2)
        jobs = list(self._jobs.receive(share, 0)) if share else []
        wait_s = 0 if jobs else min(timeout, _LONGEST_WAIT_S)
        try:
            requests = self._requests.receive(max_messages - len(jobs), wait_s)
            if requests or share or not most_jobs:
                return [*requests, *jobs]
            return self._jobs.receive(min(most_jobs, max_messages), 0)
        except ClientBroken:
            raise
        except BrokerError:
            if jobs:
                return jobs  # they would not come again before this client leaves
            raise

    def acknowledge(self, deliveries: Iterable[Delivery]) -> None:
        ours = list(deliveries)
        self._jobs.acknowledge(delivery for delivery in ours if delivery.topic == self._jobs_topic)
        self._requests.acknowledge(delivery for delivery in ours if delivery.topic != self._jobs_topic)

    def close(self) -> None:
        self._requests.close()
        self._jobs.close()
