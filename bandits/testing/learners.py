"""Conformance suites of the learners: the contract of a pass, a learner, a stream and a policy as pytest classes.

A learner passes when subclasses that give the fixtures pass, as tests/learners/test_conformance.py does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import reduce
from itertools import pairwise
from operator import add
from typing import Any, Protocol

import numpy as np
import pytest
from numpy.typing import NDArray

from bandits.errors import SnapshotError
from bandits.learners.doubly_robust import FOLDS, Events
from bandits.learners.frozen import thaw
from bandits.learners.grid import on_grid
from bandits.learners.sums import Sums
from bandits.policy import FrozenPolicy
from bandits.snapshots.manifest import content_hash
from bandits.types import Context, Mask, Matrix, Vector

Rows = NDArray[np.int64]
Learn = Callable[[Events], Callable[[Matrix], Matrix]]  # events -> (phi, (n, D) -> q_hat or what is played, (n, K))


def events_of(n: int, k: int, seed: int, d: int = 4) -> Events:
    """n events of k arms with a context on the grid and a constant last, skewed propensities, rewards of a world in
    which the context tells the best arm."""
    rng = np.random.default_rng([seed, k])
    phi = np.hstack([on_grid(rng.normal(size=(n, d - 1)), 5.0), np.ones((n, 1))])
    p = 0.7 * rng.dirichlet(np.ones(k), n) + 0.3 / k
    actions = (p.cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)
    world = np.random.default_rng([d, 7]).normal(size=(64, d))[:k]
    right = (phi @ world.T).argmax(axis=1)
    rewards = on_grid(np.clip(0.8 * (actions == right) + 0.2 * rng.random(n), 0.0, 1.0), 1.0)
    return Events(phi, actions, rewards, p[np.arange(n), actions], np.arange(n) % FOLDS, k)


def arrays(found: Any) -> Mapping[str, NDArray[Any]]:  # noqa: ANN401 - sums of any pass
    """The numbers of any pass's sums, by name."""
    if isinstance(found, Sums):
        return found.arrays
    return {field.name: np.asarray(getattr(found, field.name)) for field in fields(found)}


def same(one: Any, other: Any) -> bool:  # noqa: ANN401 - sums of any pass
    """Whether two sums are equal to the last bit."""
    mine, theirs = arrays(one), arrays(other)
    return mine.keys() == theirs.keys() and all(mine[name].tobytes() == theirs[name].tobytes() for name in mine)


@dataclass(frozen=True, slots=True)
class Pass:
    """A pass whose earlier results are frozen, over n events that it knows.

    sums: rows of these events -> their sums.   widened: the same of the same events with one arm more, which nobody
    drew.   takes_away: False where an extreme is kept, which cannot be taken back.
    """

    n: int
    sums: Callable[[Rows], Any]
    widened: Callable[[Rows], Any]
    takes_away: bool = True


class PassConformance:
    """The contract of a pass: additive, exact sums. A subclass gives the fixture `one`."""

    UPDATES = 10_000_000  # of the slow test

    @pytest.mark.parametrize("seed", range(5))
    def test_parts_in_any_order_are_the_whole_to_the_last_bit(self, one: Pass, seed: int) -> None:
        """Any partition; and a part that is taken away is as if it had never been there."""
        rng = np.random.default_rng(seed)
        events = rng.permutation(one.n)
        cuts = np.sort(rng.choice(np.arange(1, one.n), size=seed + 1, replace=False)).tolist()
        parts = [one.sums(events[a:b]) for a, b in pairwise([0, *cuts, one.n])]
        whole = one.sums(np.arange(one.n))
        assert same(reduce(add, [parts[i] for i in rng.permutation(len(parts))]), whole)
        if one.takes_away:
            assert same(whole - parts[0], reduce(add, parts[1:]))

    def test_an_event_that_is_missing_shows(self, one: Pass) -> None:
        """The negative control: sums that are always equal would pass every law."""
        assert not same(one.sums(np.arange(one.n)), one.sums(np.arange(one.n - 1)))

    def test_an_arm_more_leaves_the_statistics_of_the_others_alone(self, one: Pass) -> None:
        """Whatever is kept by arm has one row more and else the same bits; what is not is unchanged."""
        events = np.arange(one.n)
        narrow, wide = arrays(one.sums(events)), arrays(one.widened(events))
        for name, array in narrow.items():
            kept = wide[name][tuple(slice(length) for length in array.shape)]
            assert kept.tobytes() == array.tobytes(), name
            assert wide[name].ndim == array.ndim

    def test_a_hundred_thousand_updates_neither_overflow_nor_round(self, one: Pass) -> None:
        """Folded again and again, a log's sums are its own times the number of times, and every one is finite."""
        self._repeat(one, 100_000)

    @pytest.mark.slow
    def test_ten_million_updates_neither_overflow_nor_round(self, one: Pass) -> None:
        """The same, on ten million."""
        self._repeat(one, self.UPDATES)

    def _repeat(self, one: Pass, updates: int) -> None:
        once = one.sums(np.arange(one.n))
        times = -(-updates // one.n)
        total = once
        for _ in range(times - 1):
            total = total + once
        for name, array in arrays(total).items():
            assert np.isfinite(array).all()
            if one.takes_away:
                assert (array == times * np.asarray(arrays(once)[name])).all(), name


class LearnerConformance:
    """The contract of a learner of events. A subclass gives the fixture `learn`, see Learn.

    ORDERLY: whether the same events in another order give the same bits, as sums on a grid do and a search does not.
    ALIKE: share of decisions that stay, but for their names, when arms are renamed.
    """

    ORDERLY, ALIKE = True, 0.99

    @pytest.mark.parametrize("k", [2, 3, 6])
    def test_it_has_a_finite_opinion_of_every_arm(self, learn: Learn, k: int) -> None:
        """One row a context, one column an arm."""
        found = learn(events_of(400, k, 0))(events_of(50, k, 1).phi)
        assert found.shape == (50, k)
        assert np.isfinite(found).all()

    def test_the_same_events_teach_the_same_to_the_last_bit(self, learn: Learn) -> None:
        """Twice in one process; and in any order, where it is all sums. Other events teach something else."""
        events, asked = events_of(400, 3, 0), events_of(300, 3, 1).phi
        order = np.random.default_rng(0).permutation(400)
        first = learn(events)(asked)
        assert learn(events)(asked).tobytes() == first.tobytes()
        if self.ORDERLY:
            assert learn(events.where(order))(asked).tobytes() == first.tobytes()
        assert learn(events_of(400, 3, 2))(asked).tobytes() != first.tobytes()

    @pytest.mark.parametrize("k", [2, 4])
    def test_renamed_arms_are_renamed_decisions(self, learn: Learn, k: int) -> None:
        """No arm is special, but for ties."""
        events, asked = events_of(800, k, 3), events_of(300, k, 4).phi
        name = np.roll(np.arange(k), 1)
        plain, renamed = learn(events)(asked), learn(replace(events, actions=name[events.actions]))(asked)
        assert (name[plain.argmax(axis=1)] == renamed.argmax(axis=1)).mean() > self.ALIKE

    def test_what_there_is_to_learn_is_learned(self, learn: Learn) -> None:
        """On contexts that it never saw it finds the right arm far more often than chance or one arm would."""
        log, new = events_of(3000, 3, 5), events_of(1000, 3, 6)
        right = (new.phi @ np.random.default_rng([4, 7]).normal(size=(64, 4))[:3].T).argmax(axis=1)
        found = (learn(log)(new.phi).argmax(axis=1) == right).mean()
        assert found > max(0.75, np.bincount(right).max() / 1000 + 0.1)

    def test_an_arm_that_nobody_drew_breaks_nothing(self, learn: Learn) -> None:
        """A new arm comes with no event: every number stays finite."""
        events = replace(events_of(300, 3, 7), k=4)
        found = learn(events)(events.phi)
        assert found.shape == (300, 4)
        assert np.isfinite(found).all()


class Stream(Protocol):
    """A learner of one outcome after the other, of two arms over d features."""

    def learn(self, context: Vector, action: int, reward: float) -> None:
        """Learn from one outcome."""

    def numbers(self) -> Mapping[str, NDArray[Any]]:
        """All that it knows."""


class StreamConformance:
    """The contract of an online learner. A subclass gives the fixture `stream`: d -> a new one."""

    SLOW_D, QUICK_D = 64, 4

    def _taught(self, stream: Callable[[int], Stream], d: int, updates: int) -> Mapping[str, NDArray[Any]]:
        """After so many updates on contexts of which two features are nearly one."""
        rng = np.random.default_rng(0)
        contexts = rng.normal(size=(4096, d))
        contexts[:, 1] = contexts[:, 0] + 1e-3 * contexts[:, 1]
        contexts = on_grid(contexts, 5.0)
        rewards = (contexts[:, 0] > 0).astype(np.float64).tolist()
        learner = stream(d)
        learn = learner.learn
        for i in range(updates):
            j = i & 4095
            learn(contexts[j], (i ^ i >> 12) & 1, rewards[j])
        return learner.numbers()

    def test_the_same_outcomes_teach_the_same_to_the_last_bit(self, stream: Callable[[int], Stream]) -> None:
        """In the same order; and one outcome less is another state."""
        one, again, other = (self._taught(stream, self.QUICK_D, n) for n in (500, 500, 499))
        assert all(one[name].tobytes() == again[name].tobytes() for name in one)
        assert any(one[name].tobytes() != other[name].tobytes() for name in one)

    def test_a_hundred_thousand_updates_leave_finite_numbers(self, stream: Callable[[int], Stream]) -> None:
        """No NaN, no overflow."""
        self._sound(self._taught(stream, self.QUICK_D, 100_000), 100_000)

    @pytest.mark.slow
    def test_ten_million_updates_leave_finite_numbers(self, stream: Callable[[int], Stream]) -> None:
        """The same on ten million, of real size."""
        self._sound(self._taught(stream, self.SLOW_D, 10_000_000), 10_000_000)

    def _sound(self, numbers: Mapping[str, NDArray[Any]], updates: int) -> None:
        assert all(np.isfinite(array).all() for array in numbers.values())
        assert numbers["count"].sum() == updates


class PolicyConformance:
    """The contract of a policy that a snapshot may hold. A subclass gives `policy` and `contexts`, (n, d), n >= 50."""

    FLOOR = 0.1  # that the fixture's policy has

    def _allowed(self, n: int, k: int) -> Mask:
        """Some arms for each context; arm 1 always, sometimes nothing else."""
        allowed = np.random.default_rng(1).random((n, k)) < 0.6
        allowed[:, 1] = True
        return allowed

    @pytest.mark.parametrize("pressure", [0.25, 1.0, 20.0])
    def test_rows_are_distributions_with_a_floor(self, policy: Any, contexts: Context, pressure: float) -> None:  # noqa: ANN401
        """Each sums to 1; an arm that is not allowed has 0, every other at least its share of the floor."""
        allowed = self._allowed(len(contexts), len(policy.arms))
        rows = policy.probabilities(contexts, allowed, pressure)
        assert rows.shape == allowed.shape
        assert np.abs(rows.sum(axis=1) - 1.0).max() < 1e-12
        assert (rows[~allowed] == 0.0).all()
        least = np.broadcast_to(self.FLOOR / allowed.sum(axis=1, keepdims=True), rows.shape)
        assert (rows >= np.where(allowed, least, 0.0) - 1e-15).all()

    def test_asked_again_it_says_the_same_to_the_last_bit(self, policy: Any, contexts: Context) -> None:  # noqa: ANN401
        """It is pure, and what it is asked with stays as it is."""
        allowed, before = self._allowed(len(contexts), len(policy.arms)), contexts.copy()
        one, two = (policy.probabilities(contexts, allowed) for _ in range(2))
        assert one.tobytes() == two.tobytes()
        assert contexts.tobytes() == before.tobytes()

    def test_one_context_alone_is_answered_as_among_others(self, policy: Any, contexts: Context) -> None:  # noqa: ANN401
        """What serves a request is what was judged on a log: the same arm is played."""
        allowed = self._allowed(len(contexts), len(policy.arms))
        rows = policy.probabilities(contexts, allowed)
        alone = np.concatenate([policy.probabilities(contexts[i : i + 1], allowed[i : i + 1]) for i in range(50)])
        np.testing.assert_allclose(alone, rows[:50], atol=1e-12)

    def test_thawed_it_says_the_same_to_the_last_bit(self, policy: Any, contexts: Context) -> None:  # noqa: ANN401
        """What was judged is what serves, and its snapshot has the same hash."""
        allowed = self._allowed(len(contexts), len(policy.arms))
        again = thaw(policy.freeze())
        assert type(again) is type(policy)
        for pressure in (0.5, 1.0, 3.0):
            one, two = (each.probabilities(contexts, allowed, pressure) for each in (policy, again))
            assert one.tobytes() == two.tobytes()
            assert policy.price(pressure) == again.price(pressure)
        assert content_hash(policy.freeze().arrays) == content_hash(again.freeze().arrays)
        assert (again.arms, again.schema) == (policy.arms, policy.schema)
        assert again.supported.tolist() == policy.supported.tolist()
        assert again.prices.tobytes() == policy.prices.tobytes()

    def test_frozen_it_is_arrays_and_none_can_be_missing(self, policy: Any) -> None:  # noqa: ANN401
        """A snapshot that lacks one is refused by name; without covariances it is one of before they were told of."""
        frozen = policy.freeze()
        for name in frozen.arrays.keys() - {"covariances"}:
            left = {other: array for other, array in frozen.arrays.items() if other != name}
            with pytest.raises(SnapshotError, match=name):
                thaw(FrozenPolicy(frozen.kind, frozen.arms, frozen.schema, left))

    def test_a_log_without_rounds_has_no_rows(self, policy: Any, contexts: Context) -> None:  # noqa: ANN401
        """Rather than an error."""
        rows = policy.probabilities(contexts[:0], self._allowed(0, len(policy.arms)))
        assert rows.shape[0] == 0

    def test_more_pressure_never_asks_less_of_a_dollar(self, policy: Any) -> None:  # noqa: ANN401
        """The price is finite and rises."""
        prices = [policy.price(pressure) for pressure in (0.25, 1.0, 4.0, 20.0)]
        assert prices == sorted(prices)
        assert np.isfinite(prices).all()
        assert prices[0] >= 0.0
