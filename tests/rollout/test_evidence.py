"""Facts about the evidence: e-processes that keep their promise, and a fold that every process does alike."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from bandits.assignment import BUCKETS
from bandits.errors import EvidenceError
from bandits.monitoring.eprocess import AboveZero, TooOften
from bandits.record.port import Row
from bandits.rollout.evidence import Evidence
from bandits.rollout.machine import Order, begun, first
from bandits.rollout.slots import canary_ends, control_begins, place
from bandits.types import Decision, Outcome, Slot
from tests.rollout.world import SCOPE, config

TERMS = config(stages=[0.05, 0.2, 0.5, 1.0], min_sample=10).rollout
DOMAIN = config().domains["own"]


def order() -> Order:
    return begun(first(SCOPE, "000001", TERMS, 0.0, who="", why=""), "000002", TERMS, 0.0, 0, who="", why="")


def rows(n: int, seed: int, share: float = 0.5, failing: float = 0.0, worse: float = 0.0) -> list[Row]:
    """A record of n decisions at one stage, each with its outcome, as servers would write it."""
    rng, made, seed_ = np.random.default_rng(seed), [], order().seed
    for i in range(n):
        user = f"u{rng.integers(10**6)}"
        canary = place(seed_, user) < canary_ends(share)
        slot, policy = (Slot.CANARY, "000002") if canary else (Slot.STABLE, "000001")
        zero = np.zeros(2, np.float32)
        decision = Decision(
            f"d{i}", 1.0, SCOPE, "vector-2", zero, ("a", "b"), {}, np.array([0.5, 0.5]), 0, 0.5, policy, slot, user=user
        )
        good = float(np.clip(rng.normal(0.7 - worse * canary, 0.1), 0.0, 1.0))
        bad = canary and rng.random() < failing
        outcome = Outcome(f"d{i}", 1.0, SCOPE, quality=0.0 if bad else good, result="failed:server" if bad else "stop")
        made += [Row(2 * i + 1, decision), Row(2 * i + 2, outcome)]
    return made


def folded(some: list[Row], cuts: tuple[int, ...] = ()) -> Evidence:
    evidence = Evidence(order(), DOMAIN)
    for start, end in zip((0, *cuts), (*cuts, len(some)), strict=True):
        evidence.fold(some[start:end])
    return evidence


@given(rate=st.floats(0.001, 0.5), p=st.floats(0.0, 1.0))
def test_no_bet_on_errors_gains_while_the_rate_is_tolerated(rate, p):
    """By enumeration: the mean factor of each gambler is at most 1 exactly where the claim holds."""
    process = TooOften(rate)
    mean = p * np.exp(process._gains(np.array(1.0))) + (1 - p) * np.exp(process._gains(np.array(0.0)))
    if p <= rate:
        assert (mean <= 1.0 + 1e-12).all()
    else:
        assert mean.max() > 1.0 or p < 2.0 * rate


@given(values=st.lists(st.floats(-1.0, 1.0), min_size=2, max_size=6))
def test_no_bet_on_a_mean_of_zero_or_less_gains(values):
    """By enumeration over the values, moved to have a mean of 0."""
    x = np.array(values) - np.mean(values)
    process = AboveZero(2.0)
    assert (np.exp([process._gains(each) for each in x]).mean(axis=0) <= 1.0 + 1e-12).all()


def test_side_by_side_is_one_by_one():
    """Thousands of e-processes at once are what each would be alone; NaN is no news."""
    rng = np.random.default_rng(1)
    x = np.where(rng.random((50, 3)) < 0.3, np.nan, rng.random((50, 3)) < 0.2)
    together, alone = TooOften(0.05, (3,)), [TooOften(0.05) for _ in range(3)]
    for row in x:
        together.see(row)
        for process, value in zip(alone, row, strict=True):
            if np.isfinite(value):
                process.see(value)
    np.testing.assert_allclose(together.peak, [process.peak for process in alone], rtol=1e-12)


def test_false_alarms_are_rare_and_the_control_that_is_worse_is_found():
    """2,000 streams just tolerated, and just as many that are not: 1 % may err; all must be found."""
    rng = np.random.default_rng(2)
    sound, bad = TooOften(0.02, (2_000,)), TooOften(0.02, (2_000,))
    for _ in range(800):
        sound.see(rng.random(2_000) < 0.02)
        bad.see(rng.random(2_000) < 0.2)
    assert sound.reached(0.01).mean() <= 0.01 + 2 * math.sqrt(0.01 * 0.99 / 2_000)
    assert bad.reached(0.01).mean() > 0.999


@pytest.mark.parametrize("wrong", [lambda: TooOften(0.0), lambda: TooOften(1.0), lambda: AboveZero(0.0)])
def test_what_no_bettor_can_promise_is_refused(wrong):
    """Rates and ranges."""
    with pytest.raises(EvidenceError):
        wrong()
    with pytest.raises(EvidenceError, match="at least"):
        AboveZero(0.5).see(-0.6)


def test_buckets_are_nested_sticky_uniform_and_independent():
    """5 in 20 in 50 in 100; control disjoint and of equal size; another seed knows nothing of the first."""
    places = np.array([place("one", f"u{i}") for i in range(50_000)])
    other = np.array([place("two", f"u{i}") for i in range(50_000)])
    assert (places == [place("one", f"u{i}") for i in range(50_000)]).all()
    for low, high in ((0.05, 0.2), (0.2, 0.5), (0.5, 1.0)):
        assert canary_ends(low) < canary_ends(high)
    for share in (0.05, 0.2, 0.5):
        assert canary_ends(share) <= control_begins(share) == BUCKETS - canary_ends(share)
    assert control_begins(1.0) == BUCKETS == canary_ends(1.0)
    assert chisquare(np.bincount(places * 100 // BUCKETS, minlength=100)).pvalue > 1e-6
    joint = np.bincount((places * 10 // BUCKETS) * 10 + other * 10 // BUCKETS, minlength=100)
    assert chisquare(joint).pvalue > 1e-6


@settings(max_examples=20, deadline=None)
@given(cuts=st.lists(st.integers(0, 600), max_size=4), seed=st.integers(0, 5))
def test_every_process_comes_to_the_same_verdict(cuts, seed):
    """However the record was cut into looks: the same numbers to the last bit, and the breach at the same row."""
    some = rows(300, seed, failing=0.1, worse=0.1)
    one, two = folded(some), folded(some, tuple(sorted(cuts)))
    assert (one.breach, one.breached_at, one.sample, one.stage) == (two.breach, two.breached_at, two.sample, two.stage)
    for name in ("errors", "slow", "drop", "safe"):
        assert getattr(one, name).log_e == getattr(two, name).log_e


def test_rows_shown_twice_count_once():
    """A fold knows its position."""
    some = rows(200, 0)
    twice = folded(some)
    twice.fold(some)
    assert twice.sample == folded(some).sample > 0


@pytest.mark.parametrize(("fault", "said"), [({"failing": 0.5}, "fail"), ({"worse": 0.4}, "mean reward"), ({}, None)])
def test_a_bad_canary_is_a_breach_and_a_sound_one_is_not(fault, said):
    """And nothing that comes after takes it back."""
    evidence = folded(rows(1_500, 3, **fault))
    assert (evidence.breach is None) if said is None else (said in str(evidence.breach))
    verdict = evidence.judge(replace(order(), stage=2), 1e9)
    assert verdict.outcome == ("pass" if said is None else "fail")


def test_a_stage_is_passed_on_time_sample_and_evidence_and_on_nothing_less():
    """Each alone holds it."""
    at_half = replace(order(), stage=2)
    assert folded(rows(1_000, 4)).judge(at_half, 3.0).outcome == "pass"
    assert "served" in folded(rows(1_000, 4)).judge(at_half, 1.0).why
    assert "served" in folded(rows(1_000, 4)).judge(at_half, math.nan).why
    assert "0 of 10" in folded([]).judge(at_half, 1e9).why
    assert "ruled out" in folded(rows(30, 4)).judge(at_half, 1e9).why
    assert "0 of 10" in folded(rows(1_000, 4, share=0.2)).judge(at_half, 1e9).why, "all of it came in the stage before"


def test_only_canary_and_control_count():
    """Neither other users of the stable policy nor other versions nor other scopes."""
    some = rows(400, 5, share=0.05, failing=1.0)
    without = [row for row in some if isinstance(row.entry, Decision) and row.entry.slot is Slot.CANARY]
    ids = {row.entry.id for row in without}
    foreign = [replace(entry, policy="000009") if isinstance(entry, Decision) else entry for _, entry in some]
    others = [Row(at, entry) for at, entry in enumerate(foreign, start=1)]
    assert folded(some).breach is not None
    assert folded(others).breach is None
    assert folded(others).sample == 0
    assert folded(some).sample <= len(ids)
