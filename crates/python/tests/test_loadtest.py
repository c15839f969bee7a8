"""Verdicts of the load tests, on figures that are made up."""

import sys
from types import SimpleNamespace

import pytest

from conftest import REPOSITORY

sys.path.append(str(REPOSITORY / "loadtest" / "soak"))


@pytest.fixture
def soak():
    """A soak that had ten reloads in ten minutes, and in which nothing went wrong."""
    from soak import Soak

    ran = Soak({"http": "127.0.0.1:1"}, [], None, SimpleNamespace(minutes=10, reload_seconds=60))
    for at in range(600):
        memory = {"canet": 100.0, "holds": 30.0, "leaks": 30.0 + at / 10}
        ran.seconds.append({"at": at, "p50_ms": 1.0, "p99_ms": 2.0, "memory_mb": memory})
    ran.reloads = [{"at": 60 * place, "seconds": 0.1} for place in range(10)]
    ran.rate, ran.offered, ran.statuses = 10, 6000, {"200": 6000}
    return ran


def test_a_soak_passes_if_every_request_is_answered(soak):
    assert soak.result()["passed"]


@pytest.mark.parametrize("statuses", [{"200": 5999, "429": 1}, {"429": 6000}, {"200": 5999, "short": 1}, {"200": 5999}, {}])
def test_a_soak_fails_if_a_request_is_refused_or_not_answered(soak, statuses):
    soak.statuses = statuses
    assert not soak.result()["passed"]


def test_only_answers_have_a_latency(soak, monkeypatch):
    from queue import Queue

    outcomes, tickets = iter([200, 429, "TimeoutError"]), Queue()
    monkeypatch.setattr(soak, "ask", lambda _: next(outcomes))
    soak.statuses = {}
    for ticket in [0.0, 0.0, 0.0, None]:
        tickets.put(ticket)
    soak.work(tickets)
    assert len(soak.latencies) == 1 and soak.statuses == {"200": 1, "429": 1, "TimeoutError": 1}


def test_a_soak_that_got_no_answer_at_all_has_a_verdict(soak):
    for second in soak.seconds:
        second["p50_ms"] = second["p99_ms"] = None
    soak.statuses = {"429": 6000}
    assert (soak.result()["passed"], soak.result()["p50_ms"]) == (False, None)


def test_the_mean_of_one_round_has_no_error():
    from http_cost import standard_error, with_error

    assert standard_error([1.0]) is None and standard_error([1.0, 3.0]) == pytest.approx(1.0)
    assert (with_error(1.0, None), with_error(1.0, 0.5)) == ("1.000", "1.000 ±0.500")
