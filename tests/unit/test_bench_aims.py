"""From what was measured to what was aimed at."""

import pytest

from bench import aims as names
from bench import tables
from bench.aims import aims, missed, ratios
from bench.report import BARE, EMBEDDED, KAFKA, MOBILENET, Cell, figure, ratio
from bench.report import row as row_of_cells
from bench.scale import result
from mlaas.commands.bench import Result
from tests.unit.bench_reports import COST_MS, ours, report, rounds, row


def aim(found, start):
    (one,) = (each for each in aims(found) if each.name.startswith(start))
    return one


def test_a_ratio_is_taken_within_each_round():
    """The machine was half as fast in the second round; the ratio is the same in both."""
    assert ratio(rounds(2000, 1000), rounds(1000, 500)) == rounds(2.0, 2.0)


def test_a_ratio_leaves_out_rounds_that_one_of_both_lacks():
    found = ratio(figure({1: 30.0, 2: 40.0}), figure({2: 20.0, 3: 5.0}))
    assert found is not None
    assert found.rounds == {2: 2.0}
    assert ratio(figure({1: 30.0}), figure({2: 20.0})) is None
    assert ratio(figure({1: 30.0}), figure({1: 0.0})) is None


def test_a_figure_has_median_least_and_most():
    found = rounds(3.0, 1.0, 9.0)
    assert (found.median, found.least, found.most) == (3.0, 1.0, 9.0)


def test_an_aim_over_a_peer_compares_the_same_number_of_clients_and_one_worker():
    rows = [ours(3000), ours(9000, clients=256), row("Mosec", 2000), row("Mosec", 9999, workers=2)]
    found = aim(report(*rows), "64 clients, requests/s over Mosec's")
    assert found.value == rounds(1.5)
    assert found.met


def test_the_best_of_each_may_have_any_number_of_clients_and_workers():
    rows = [ours(3000), ours(8000, clients=256), row("Mosec", 2000), row("Mosec", 10000, workers=2)]
    found = aim(report(*rows), "best of each")
    assert found.value == rounds(0.8)
    assert not found.met


def test_a_gate_may_be_met_where_the_aim_is_not():
    found = aim(report(ours(900), row("Mosec", 1000)), "64 clients, requests/s over Mosec's")
    assert (found.gate, found.gate_met, found.target, found.met) == (">= 0.85", True, ">= 1", False)
    assert missed([found]) == [found.name]


def test_a_missed_gate_is_said():
    found = aim(report(ours(800), row("Mosec", 1000)), "64 clients, requests/s over Mosec's")
    assert not found.gate_met
    assert missed([found]) == [f"{found.name} (its gate, too)"]


def test_the_processor_time_of_a_request_is_that_of_all_parts():
    found = aim(report(ours(1000)), "64 clients, CPU ms a request")
    assert found.value == rounds(0.7)
    assert not found.gate_met


def test_requests_with_another_model_are_compared_with_such_alone():
    rows = [ours(1000), ours(90, model=MOBILENET), row("Mosec", 500), row("Mosec", 100, model=MOBILENET)]
    found = report(*rows)
    assert aim(found, "224x224 model").value == rounds(0.9)
    assert aim(found, "64 clients, requests/s over Mosec's").value == rounds(2.0)
    assert found.best("Mosec") == rows[2]


@pytest.mark.parametrize("system", names.IDLE)
def test_idling_has_a_gate_and_an_aim(system):
    values = {names.idle_share(system): rounds(1.5), names.first_ms(system): rounds(9.0)}
    share, first = (aim(report(values=values), name) for name in values)
    assert share.gate_met
    assert share.met == (system == EMBEDDED)
    assert first.met


def test_forms_are_compared_with_forms():
    rows = [ours(3000), ours(1600, body="form"), row("FastAPI", 900), row("FastAPI", 800, body="form")]
    assert aim(report(*rows), "64 clients, forms").value == rounds(2.0)


def test_peers_that_take_no_raw_body_are_compared_by_what_they_take():
    (bentoml,) = (
        each
        for each in ratios(report(ours(3000), row("BentoML", 100, body="json")))
        if each.peer == "BentoML"
    )
    assert bentoml.at_64_clients == rounds(30.0)


def test_one_client_is_compared_with_the_sum_of_the_parts():
    values = {names.PING_PONG_MS: rounds(1.5), names.inference_ms(1): rounds(0.3)}
    rows = [ours(500, clients=1, p50_ms=3.0), row(BARE, 9000, clients=1, p50_ms=0.2)]
    found = aim(report(*rows, values=values), "one client, median ms over")
    assert found.value == rounds(1.5)
    assert found.met


def test_what_was_not_measured_is_not_met_and_says_so():
    found = aims(report())
    assert not any(each.met for each in found)
    assert len(missed(found)) == len(found)
    assert all("not measured" in each for each in missed(found))


def test_every_part_measured_by_itself_has_an_aim():
    every = {name: rounds(1.0) for name in vars(names).values() if isinstance(name, str) and ", " in name}
    without = {each.name for each in aims(report()) if each.value is None}
    with_values = {each.name for each in aims(report(values=every)) if each.value is None}
    assert len(without - with_values) == 7


def test_the_errors_of_all_rounds_are_added_up():
    def cell(per_s, errors):
        found = Result(
            answers=10, requests_per_s=per_s, p50_ms=1, p90_ms=2, p99_ms=3, max_ms=per_s, errors=errors
        )
        return Cell(found, {"gateway": 0.5}, 2.0)

    found = row_of_cells(ours(1).case, {1: cell(100.0, {"closed": 1}), 2: cell(300.0, {"closed": 2})})
    assert (found.errors, found.answers, found.max_ms) == ({"closed": 3}, 20, 300.0)
    assert found.requests_per_s == rounds(100.0, 300.0)
    assert found.cpu_ms == {"gateway": rounds(0.5, 0.5)}


def test_efficiency_is_over_so_many_times_one():
    found = result(4, {1: 25.0, 4: 90.0}, [10, 30, 20, 20])
    assert (found.efficiency, found.busiest, found.idlest) == (0.9, 1.5, 0.5)


def test_needs_follow_from_costs():
    """60 % of a core is 3,000 requests/s at 0.2 ms and 2,000 at 0.3 ms."""
    assert tables.gateways(10_000, COST_MS) == 4
    assert tables.workers(10_000, COST_MS) == 5
    assert tables.partitions(10_000, COST_MS) == 12
    assert tables.partitions(100_000, COST_MS) == 108
    assert tables.brokers(1_000, COST_MS) == 3
    assert tables.brokers(1_000_000, COST_MS) == 42


@pytest.mark.parametrize("rate", tables.RATES)
def test_there_are_at_least_two_partitions_for_each_worker_and_gateway(rate):
    workers, gateways = tables.workers(rate, COST_MS), tables.gateways(rate, COST_MS)
    assert tables.partitions(rate, COST_MS) >= 2 * max(workers, gateways)


def test_the_scaling_page_is_about_mlaas_over_apache_kafka():
    found = tables.scaling(report(ours(1000), row("Mosec", 500, cpu_ms={"server": 9.0})))
    assert "| together | 0.7 | 1,429 |" in found
    assert KAFKA not in found
