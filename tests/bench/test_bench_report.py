"""What is said about figures."""

import pytest

from bench.application import REQUESTS, RUNNER, UVICORN, Measured
from bench.application import report as application_report
from bench.compare import QUICK, SCENARIOS, Results
from bench.fairness import QUIET, Waits, flooded
from bench.fairness import report as fairness_report
from bench.load import Cost
from bench.report import report
from bench.servers import StartError
from bench.watched import report as watched_report


def results_of(**messages_per_server_second: int) -> Results:
    """Servers that differ in what a second of their CPU time does, in three rounds of which one is disturbed."""
    results = Results(QUICK)
    for name, rate in messages_per_server_second.items():
        for scenario in SCENARIOS:
            calm, disturbed = Cost(rate, 1.0, 0.5, (1.0,)), Cost(rate, 4.0, 0.5, (2.0,))
            results.costs[name, scenario] = [calm, disturbed, calm]
        results.idle_kib[name] = 10.0
    return results


def test_ratios_are_those_of_the_median_round() -> None:
    results = results_of(fast=300, uvicorn=100)
    results.costs["uvicorn", "W=1"][0] = Cost(1, 1.0, 0.5, (1.0,))
    assert results.ratio("fast", "W=1") == 3.0


def test_a_goal_that_is_missed_is_named() -> None:
    results = results_of(fast=290, uvicorn=100, nchan=300)
    results.idle_kib["fast"] = 5.0
    text = report(results)
    assert "- fast, W=1: 2.90 times uvicorn; goal 3.00, below its goal" in text
    assert "- fast, W=1: 0.97 times nchan; goal 0.95, reached" in text
    assert "- fast, idle: 5.0 KiB per connection; goal 6.0, reached" in text


def test_too_much_memory_is_above_its_goal() -> None:
    results = results_of(fast=300, uvicorn=100)
    results.idle_kib["fast"] = 6.5
    assert "- fast, idle: 6.5 KiB per connection; goal 6.0, above its goal" in report(results)


def test_a_server_that_was_not_measured_is_named_with_the_reason() -> None:
    results = results_of(uvicorn=100)
    results.missing["node"] = "npm is not installed"
    results.failures["fast"] = "lost: 3 messages"
    text = report(results)
    assert "- node: not measured: npm is not installed" in text
    assert "- fast failed: lost: 3 messages" in text
    assert "goal" not in text


def test_without_the_reference_there_are_no_ratios() -> None:
    assert " - |" in report(results_of(node=100))


def test_a_load_at_its_limit_is_mentioned() -> None:
    results = results_of(uvicorn=100)
    results.costs["uvicorn", "W=16"] = [Cost(100, 1.0, 0.99, (0.7,))] * 3
    assert "- uvicorn, W=16: the load was at its limit" in report(results)


def test_workers_scale_by_what_the_busiest_of_them_is_left_with() -> None:
    results = results_of(fast=100, workers=100, uvicorn=100)
    results.costs["workers", "W=1"] = [Cost(100, 1.0, 0.5, (0.0, 0.5, 0.5))] * 3
    results.costs["workers", "W=16"] = [Cost(100, 1.0, 0.5, (0.0, 0.8, 0.2))] * 3
    text = report(results)
    assert "- scaling, W=1: two workers with a CPU each can do 2.00 times the work of one; goal 1.50, reached" in text
    assert (
        "- scaling, W=16: two workers with a CPU each can do 1.25 times the work of one; goal 1.50, below its goal"
        in text
    )


def test_what_two_cpus_do_by_the_clock_is_told_with_what_the_load_took() -> None:
    results = results_of(**{"fast": 100, "uvicorn": 100, "two-cpus": 100})
    results.costs["two-cpus", "W=1"] = [Cost(150, 1.0, 0.6, (0.0, 0.7, 0.7))] * 3
    text = report(results)
    assert "- two-cpus, W=1: 1.50 times fast by the clock; the load took 0.60 of a CPU" in text


def test_the_flood_beside_which_an_honest_client_waits_longest_is_named() -> None:
    results = {("no nginx", QUIET): Waits(0.4, 0.7), ("nginx", "pings"): Waits(2.0, 60.0)}
    text = fairness_report(results, 2.0).text
    assert "| nothing | 0.4 / 0.7 |            |" in text
    assert "| pings   |           | 2.0 / 60.0 |" in text
    assert "- pings, nginx: p99 60.0 ms; goal below 50, above its goal" in text


def test_what_it_costs_to_be_watched_is_compared_with_its_goal() -> None:
    text = watched_report({100: 0.4, 5000: 3.0}, 10).text
    assert "0.30% of a core at most; goal below 2%, reached" in text
    assert "above its goal" in watched_report({5000: 30.0}, 10).text


def test_an_application_is_compared_with_both_goals() -> None:
    ours, theirs = [Measured(300, 0.010)] * 3, [Measured(200, 0.010)] * 3
    results = {(kind, name): ours if name == RUNNER else theirs for kind in REQUESTS for name in (RUNNER, UVICORN)}
    text = application_report(results).text
    told = "1.50 times the requests per CPU second, p99 1.00 times; goals at least 1.0 and at most 1.05, reached"
    assert f"kept: {told}" in " ".join(text.split())
    results["new", RUNNER] = [Measured(300, 0.011)] * 3
    assert "p99 1.10 times; goals at least 1.0 and at most 1.05, missed" in " ".join(
        application_report(results).text.split()
    )


def test_nothing_is_measured_beside_a_flood_that_has_ended() -> None:
    with pytest.raises(StartError, match="the flood of no such flood has ended by itself"), flooded(1, "no such flood"):
        pass
