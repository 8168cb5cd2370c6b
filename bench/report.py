"""What is kept of a run."""

import msgspec

from mlaas.load.bodies import Body

KAFKA, EMBEDDED, BARE = "mlaas, Apache Kafka", "mlaas, embedded broker", "bare uvicorn"


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of whom. clients: each with one request under way; 0 where requests come at a rate."""

    system: str
    workers: int = 1
    body: Body = "raw"
    clients: int = 0
    rate_per_s: float = 0.0
    generator: str = "wrk"


class Figure(msgspec.Struct, frozen=True):
    """Over the rounds. rounds are kept so that ratios can be taken within each."""

    median: float
    least: float
    most: float
    rounds: dict[int, float]


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One case over all rounds: figures, the worst latency, and the sum of the errors.

    quantiles_ms: medians over the rounds. cpu_ms: for a request, by role. generator_cores: how many cores the
    load generator kept busy.
    """

    case: Case
    requests_per_s: Figure
    p50_ms: Figure
    p99_ms: Figure
    max_ms: float
    answers: int
    errors: dict[str, int]
    quantiles_ms: list[float]
    cpu_ms: dict[str, Figure]
    generator_cores: float


class Failed(msgspec.Struct, frozen=True):
    """What could not be measured, and why."""

    system: str
    round: int
    reason: str


class Scale(msgspec.Struct, frozen=True, kw_only=True):
    """Simulated workers. efficiency: of so many times what one does. busiest, idlest: partition over mean."""

    workers: int
    requests_per_s: float
    efficiency: float
    busiest: float
    idlest: float


class Aim(msgspec.Struct, frozen=True, kw_only=True):
    """value: none where it was not measured."""

    name: str
    value: Figure | None
    target: str
    met: bool


class Ratio(msgspec.Struct, frozen=True):
    """How many times a peer's requests/s mlaas over Apache Kafka has; none where either is not measured."""

    peer: str
    at_64_clients: Figure | None
    best_of_each: Figure | None


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """values: by what they are of, with the unit in the name. took_s: the whole run."""

    machine: dict[str, str | int | float]
    versions: dict[str, str]
    command: str
    date: str
    rounds: int
    seconds: float
    took_s: float
    notes: list[str]
    rows: list[Row]
    values: dict[str, Figure]
    scales: list[Scale]
    failed: list[Failed]
    ratios: list[Ratio] = []
    aims: list[Aim] = []

    def measured(self) -> "Report":
        """Without the aims and ratios that a run of some parts alone cannot tell."""
        return msgspec.structs.replace(
            self,
            aims=[aim for aim in self.aims if aim.value],
            ratios=[each for each in self.ratios if each.at_64_clients or each.best_of_each],
        )
