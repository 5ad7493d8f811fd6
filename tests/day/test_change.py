"""Facts about the watch over arms: how seldom it is wrong, how soon it sees, what it does, and that it forgives."""

from __future__ import annotations

import numpy as np
import pytest

from bandits.day.change import ChangeOptions, Watch, guarded
from bandits.errors import EvidenceError


def draws_until(rewards, quarantined, options, foretold=0.9):
    """How many of the rewards it takes until arm 0's state is `quarantined`; None if it never is."""
    watch = Watch.start(2, options)
    watch.draws[0] = options.patience
    watch.quarantined[0] = not quarantined
    for i, reward in enumerate(rewards):
        watch.see(0, foretold, float(reward))
        if watch.quarantined[0] == quarantined:
            return i + 1
    return None


def test_a_fall_is_seen_within_tens_of_draws():
    """Rewards about .9 that fall to .75: graded ones in 60 draws at most, in 20 worlds of 20."""
    rng = np.random.default_rng(0)
    found = [draws_until(np.clip(rng.normal(0.75, 0.1, 200), 0, 1), True, ChangeOptions()) for _ in range(20)]

    assert None not in found
    assert max(found) <= 60


@pytest.mark.parametrize("binary", [False, True])
def test_false_alarms_are_as_rare_as_stated(binary):
    """With a run length of 50, the mean time to a false alarm is above 50 even at the edge of what is forgiven."""
    rng = np.random.default_rng(1)
    options = ChangeOptions(run_length=50.0)
    times = []
    for _ in range(60):
        mean = 0.88  # foretold .9, less a fifth of the room of .1
        rewards = rng.random(3000) < mean if binary else np.clip(rng.normal(mean, 0.03, 3000), 0, 1)
        times.append(draws_until(rewards, True, options) or 3000)

    assert np.mean(times) > 50.0
    worse = [draws_until(rng.random(3000) < 0.6, True, options) or 3000 for _ in range(50)]
    assert np.mean(worse) < 50.0  # the negative control: a real fall is found sooner


def test_an_arm_that_still_falls_short_is_seldom_released():
    """At the edge of `short`, over 300 probes, at most `mistake` of 300 worlds (and what chance adds to it)."""
    rng = np.random.default_rng(2)
    options = ChangeOptions()
    released = sum(draws_until(rng.random(300) < 0.8, False, options) is not None for _ in range(300))

    assert released / 300 <= 0.05 + 2.0 * np.sqrt(0.05 * 0.95 / 300)


def test_an_arm_that_heals_is_released():
    """Rewards as foretold: within 150 probes, and then it is watched from anew."""
    rng = np.random.default_rng(3)
    times = [draws_until(np.clip(rng.normal(0.9, 0.05, 400), 0, 1), False, ChangeOptions()) for _ in range(20)]

    assert None not in times
    assert max(times) <= 150


def test_a_quarantined_arm_is_not_learned_from_and_others_are():
    """`see` says what may be learned from; the arm's wealth bets on its recovery meanwhile."""
    watch = Watch.start(2)
    watch.draws[:] = 100.0
    assert watch.see(0, 0.9, 0.9)
    while watch.see(0, 0.95, 0.1):
        pass

    assert watch.quarantined.tolist() == [True, False]
    assert not watch.see(0, 0.95, 0.1)
    assert watch.see(1, 0.5, 0.5)


def test_a_young_arm_is_not_watched():
    """What is foretold of it is no promise yet; after its patience the same rewards raise the alarm."""
    watch = Watch.start(1)

    first = [watch.see(0, 0.9, 0.0) for _ in range(100)]
    later = [watch.see(0, 0.9, 0.0) for _ in range(50)]

    assert all(first)
    assert not later[-1]


def test_guarded_rows_probe_and_give_the_rest_to_the_others():
    """At most `probe`, at most what it had; the others share the rest in proportion; each row is a distribution."""
    rows = np.array([[0.1, 0.8, 0.1], [0.97, 0.01, 0.02], [0.5, 0.5, 0.0]])
    others = np.array([[0.5, 0.0, 0.5], [0.98, 0.0, 0.02], [1.0, 0.0, 0.0]])

    found = guarded(rows, others, np.array([[False, True, False]] * 3), 0.04)

    assert found == pytest.approx(np.array([[0.48, 0.04, 0.48], [0.9702, 0.01, 0.0198], [0.96, 0.04, 0.0]]))
    assert found.sum(axis=1) == pytest.approx(np.ones(3))


@pytest.mark.parametrize(("foretold", "reward"), [(0.5, 1.5), (0.5, float("nan")), (float("nan"), 0.5)])
def test_nonsense_is_refused(foretold, reward):
    """A detector that swallowed a NaN would never alarm again."""
    with pytest.raises(EvidenceError):
        Watch.start(1).see(0, foretold, reward)
