"""Facts about the cap on one user's influence: how much stays, of whom, and what a hostile one moves then."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandits.config import NightConfig
from bandits.errors import ShapeError
from bandits.learners.doubly_robust import Parameters
from bandits.night import night
from bandits.snapshots.manifest import content_hash
from bandits.training.influence import NOTHING, LeftOut, capped, enough, most_of
from bandits.training.training import prepare, train
from bandits.types import LoggedFeedback
from tests.logs import domain, same, simulate, truth

BUDGET = 1.5e-3


def asked(users: list[str], seed: int = 0) -> LoggedFeedback:
    """A log with a round of each of these users, in this order."""
    return replace(simulate(len(users), seed), users=tuple(users))


def crowd(n: int, share: float, seed: int = 0) -> LoggedFeedback:
    """A log of 200 people, and of one more who made this share of it."""
    rng = np.random.default_rng(7)
    return asked(["mallory" if rng.random() < share else f"u{i % 200}" for i in range(n)], seed)


people = st.lists(st.sampled_from(["", "ann", "bo", "cy", *(f"u{i}" for i in range(20))]), max_size=60)
shares = st.sampled_from([0.05, 0.1, 0.3, 0.5, 1.0])


@settings(max_examples=80, deadline=None)
@given(users=people, share=shares)
def test_everybody_has_at_most_their_share_and_nobody_within_it_loses_a_round(users, share):
    """Law, by brute force: exactly as many stay as may; nobody in particular never loses one; order and rows stay."""
    log = asked(users)
    n, counts = len(log), Counter(users)
    heads = len(counts) - ("" in counts) + counts[""]  # nobody in particular is many people
    most = max(int(share * n), 1) if heads * share >= 1.0 else n // max(heads, 1)

    left, out = capped(log, share)

    kept = Counter(left.users)
    for user, count in counts.items():
        assert kept[user] == (count if user == "" else min(count, most))
    assert out == LeftOut(n - len(left), sum(kept[user] < count for user, count in counts.items()))
    assert same(left, log.where(np.isin(log.ids, left.ids)))


@settings(max_examples=30, deadline=None)
@given(users=people, seed=st.integers(0, 9))
def test_which_rounds_stay_depends_on_no_reward_action_or_context(users, seed):
    """Law: with all else drawn anew, the same ids stay."""
    log, other = asked(users, 0), asked(users, seed)
    other = replace(other, ids=log.ids)

    assert capped(log, 0.1)[0].ids == capped(other, 0.1)[0].ids


def test_what_stays_is_unbiased_and_its_propensities_are_what_they_were():
    """Mean reward of what stays of a user over many logs, against that of all of it, within four standard errors."""
    left = [(log, capped(log, 0.05)[0]) for log in (crowd(1000, 0.3, seed) for seed in range(60))]
    gaps = []
    for seed, (log, some) in enumerate(left):
        rows = {f"{seed}-{i}": i for i in range(len(log))}
        at = [rows[id_] for id_ in some.ids]
        assert some.propensities.tobytes() == log.propensities[at].tobytes()
        mine, kept = np.array(log.users) == "mallory", np.array(some.users) == "mallory"
        assert kept.sum() == 50
        gaps.append(some.rewards[kept].mean() - log.rewards[mine].mean())

    assert abs(np.mean(gaps)) < 4.0 * np.std(gaps) / np.sqrt(len(gaps))


def test_as_a_log_grows_by_little_few_rounds_come_or_go():
    """Ten rounds more of a thousand: all but a few of the user's rounds that stayed stay."""
    log = crowd(1010, 0.3)
    before, after = (set(capped(one, 0.05)[0].ids) for one in (log.where(np.arange(1010) < 1000), log))

    assert len(before - after) <= 3
    assert len(after - before) <= 13


def test_a_few_people_have_even_shares():
    """Five who are as busy as each other lose nothing; of one among them who is busier, what is beyond a fifth."""
    even = asked([f"u{i % 5}" for i in range(100)])
    busy = asked([f"u{i % 5 if i % 2 else 0}" for i in range(100)])

    assert capped(even, 0.05) == (even, NOTHING)
    assert Counter(capped(busy, 0.05)[0].users)["u0"] == 20
    assert (most_of(5, 100, 0.05), most_of(19, 100, 0.05), most_of(20, 100, 0.05), enough(0.05)) == (20, 5, 5, 20)


def test_a_log_that_does_not_know_who_asked_stays_as_it_is():
    """Also one where everybody is nobody in particular."""
    log = simulate(50, 0)
    anonymous = replace(log, users=("",) * 50)

    assert capped(log, 0.05) == (log, NOTHING)
    assert capped(anonymous, 0.05) == (anonymous, NOTHING)


def test_users_are_one_for_each_round_or_none():
    with pytest.raises(ShapeError, match="users must be one for each of 50 rounds, or none, but got 2"):
        replace(simulate(50, 0), users=("a", "b"))


def test_where_nobody_exceeds_the_cap_the_policy_is_the_same_bit_for_bit():
    """And another where somebody does (the negative control)."""
    hashes = []
    for log in (crowd(1200, 0.0), crowd(1200, 0.3)):
        config = domain(BUDGET)
        plain = train(prepare(replace(log, users=()), config, 200), Parameters())
        settings = NightConfig(trials=1, learners=("linear",))
        found = night.learn(log, config, settings)
        hashes += [content_hash(one.policy.freeze().arrays) for one in (plain, found.trained)]

    assert hashes[0] == hashes[1]
    assert hashes[2] != hashes[3]


def cheap(log: LoggedFeedback) -> np.ndarray:
    """Praise for the cheap arm whatever it did, and none for the others."""
    return (log.actions == 0).astype(np.float64)


def opposite(log: LoggedFeedback) -> np.ndarray:
    """Praise for the arm that is worst in each context, and none for the others."""
    return (log.actions == truth(log.contexts).argmin(axis=1)).astype(np.float64)


@pytest.mark.parametrize("attack", [cheap, opposite])
def test_a_hostile_user_with_three_rounds_of_ten_moves_the_policy_little(attack):
    """By the truth that made the log, of what the guard publishes; without the cap it falls by a tenth and more."""
    log = crowd(2000, 0.3)
    poisoned = replace(log, rewards=np.where(np.array(log.users) == "mallory", attack(log), log.rewards))

    clean = worth(log, 1.0)
    with_cap, without = worth(poisoned, 0.05), worth(poisoned, 1.0)

    assert with_cap >= 0.97 * clean
    assert without <= 0.9 * clean


def worth(log: LoggedFeedback, share: float) -> float:
    """Mean reward on fresh contexts of the policy that a night with this share would publish."""
    settings = NightConfig(trials=1, learners=("linear",), user_share=share)
    judged = night.judge(night.learn(log, domain(BUDGET), settings), settings)
    contexts = np.random.default_rng(99).normal(size=(4000, 2)).astype(np.float32)
    drawn = judged.policies[judged.publish].probabilities(contexts, np.ones((4000, 3), np.bool_))
    return float((drawn * truth(contexts)).sum(axis=1).mean())


def test_the_guard_hears_what_the_learners_heard_and_the_gate_hears_all():
    """One who praises the cheap arm outvotes neither; the log before the cap is still there for the gate."""
    log = crowd(2000, 0.3)
    settings = NightConfig(trials=1, learners=("linear",))

    learned = night.learn(log, domain(BUDGET), settings)

    assert same(learned.prepared.feedback, capped(log, 0.05)[0])
    assert same(learned.whole, log)
    assert night.judge(learned, settings).gate.n == len(log)
