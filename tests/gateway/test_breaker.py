"""Facts about breakers and the retry budget: arithmetic over times that are given."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandits.settings.gateway import GatewayConfig
from gateway.breaker import UNPAID, Breaker, Breakers
from gateway.retry import PASSING, RetryBudget, pause

SETTINGS = GatewayConfig()
A, B = ("maker", "a"), ("maker", "b")


def opened(now: float = 0.0) -> Breaker:
    breaker = Breaker(SETTINGS)
    for _ in range(SETTINGS.breaker_failures):
        breaker.failed("server", now, probe=False)
    return breaker


def test_it_opens_at_the_fifth_failure_in_a_row_and_not_before():
    """An answer in between begins the count anew."""
    breaker = Breaker(SETTINGS)
    for kind in ("server", "refused", "cut", "stalled"):
        breaker.failed(kind, 0.0, probe=False)
    breaker.answered(probe=False)
    for _ in range(SETTINGS.breaker_failures - 1):
        breaker.failed("empty", 0.0, probe=False)
    assert breaker.state(0.0) == "closed"
    breaker.failed("empty", 0.0, probe=False)
    assert breaker.state(0.0) == "open"


def test_half_open_lets_one_through_and_its_answer_closes():
    """Nobody else while the probe is on its way."""
    breaker = opened()
    assert not breaker.enter(0.99)
    assert breaker.state(1.0) == "half open"
    assert breaker.enter(1.0)
    assert not breaker.enter(1.0)
    breaker.answered(probe=True)
    assert breaker.state(1.0) == "closed"


def test_a_probe_that_came_to_no_end_is_given_back():
    """Or the model would be left alone for ever."""
    breaker = opened()
    assert breaker.enter(1.0)
    breaker.leave()
    assert breaker.enter(1.0)


def test_the_end_of_a_call_from_before_changes_nothing():
    """Neither a late answer nor a late failure of the burst that opened it."""
    breaker = opened()
    breaker.answered(probe=False)
    breaker.failed("server", 0.9, probe=False)
    assert (breaker.state(0.95), breaker.state(1.0)) == ("open", "half open")


@pytest.mark.parametrize("kind", sorted(UNPAID))
def test_without_credit_or_key_it_opens_at_once_and_for_longer(kind):
    """The next call would fail just so."""
    breaker = Breaker(SETTINGS)
    breaker.failed(kind, 0.0, probe=False)
    assert breaker.state(SETTINGS.breaker_unpaid_s - 0.1) == "open"
    assert breaker.state(SETTINGS.breaker_unpaid_s) == "half open"


@pytest.mark.parametrize(("wish", "until"), [(0.0, 1.0), (7.0, 7.0), (1e9, 300.0)])
def test_a_providers_wish_is_obeyed(wish, until):
    """Retry-After opens at once; never for less than the pause between probes, nor without end."""
    breaker = Breaker(SETTINGS)
    breaker.failed("rate_limited", 0.0, probe=False, retry_after_s=wish)
    assert (breaker.state(until - 0.01), breaker.state(until)) == ("open", "half open")


def test_what_the_request_is_to_blame_for_never_opens_and_even_closes():
    """A model that says what is wrong with a prompt is there."""
    breaker = Breaker(SETTINGS)
    for _ in range(50):
        breaker.failed("bad_request", 0.0, probe=False)
    assert breaker.state(0.0) == "closed"
    breaker = opened()
    assert breaker.enter(1.0)
    breaker.failed("too_long", 1.0, probe=True)
    assert breaker.state(1.0) == "closed"


@given(st.lists(st.tuples(st.floats(0.0, 3.0), st.booleans()), max_size=300))
def test_probes_are_a_second_apart_and_recovery_is_found_in_time(steps):
    """Whenever callers come and however their probes end: <= 1 probe a second, and the longest pause is kept."""
    breaker, now, probes, since = opened(), 0.0, [], 0.0
    for wait, answers in steps:
        now += wait
        if breaker.state(now) == "closed":
            breaker, probes = opened(now), []
            since = now
        may = breaker.enter(now)
        assert may or now - since < SETTINGS.breaker_longest_s
        if not may:
            continue
        probes.append(now)
        since = now
        if answers:
            breaker.answered(probe=True)
        else:
            breaker.failed("server", now, probe=True)
    assert all(later - earlier >= SETTINGS.breaker_pause_s for earlier, later in itertools.pairwise(probes))


def test_models_have_breakers_of_their_own():
    """And whoever asks for leave hears which are closed to it, and why."""
    breakers = Breakers(SETTINGS)
    for _ in range(SETTINGS.breaker_failures):
        breakers.failed(A, "refused", 0.0, probe=False)
    assert breakers.enter([A, B], 0.5) == ({A: "its breaker is open (refused)"}, frozenset())
    assert breakers.enter([A, B], 1.0) == ({}, frozenset({A}))
    assert breakers.enter([A, B], 1.0)[0].keys() == {A}
    breakers.leave([A])
    assert breakers.states(1.0) == {A: "half open", B: "closed"}


@given(st.lists(st.booleans(), max_size=400), st.floats(0.0, 1.0))
def test_retries_are_never_more_than_their_share(asked, share):
    """At any moment, whatever came before."""
    budget, retries = RetryBudget(share), 0
    for requests, wants in enumerate(asked, start=1):
        budget.requested()
        retries += wants and budget.take()
        assert retries <= share * requests + 1e-6


def test_a_tenth_is_one_in_ten():
    """Rounding does not eat the tenth retry, and quiet times save up only so many."""
    budget = RetryBudget(0.1)
    for _ in range(10):
        assert not budget.take()
        budget.requested()
    assert budget.take()
    assert not budget.take()
    for _ in range(10_000):
        budget.requested()
    assert sum(budget.take() for _ in range(100)) == 10


def test_only_what_may_pass_is_asked_again():
    """After a jittered pause that doubles; a long Retry-After is another model's chance."""
    rng = np.random.default_rng(0)
    for kind in ("first_token_timeout", "bad_request", "no_credit", "too_long", "filtered", "empty", "resting"):
        assert pause(kind, None, 1, 0.2, rng) is None
    pauses = [[pause(kind, None, tried, 0.2, rng) for _ in range(2_000)] for kind in ("server",) for tried in (1, 2)]
    assert [round(float(np.mean(each)), 1) for each in pauses] == [0.2, 0.4]
    assert max(pauses[0]) <= 0.4
    assert pause("rate_limited", 60.0, 1, 0.2, rng) is None
    assert pause("rate_limited", None, 1, 0.2, rng) is None
    assert pause("rate_limited", 1.5, 1, 0.2, rng) == 1.5
    assert "rate_limited" in PASSING
