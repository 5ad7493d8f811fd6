"""Facts about the choice among learners: the simplest one stays unless another shows its gain."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest

from bandits.errors import NotEnoughDataError
from bandits.learners import corrected, offset_tree
from bandits.learners.choice import choose
from bandits.learners.doubly_robust import FOLDS, Events


def log(n: int, k: int) -> tuple[Events, np.ndarray]:
    """A uniform log in which arm i % K is right in round i."""
    right = np.arange(n) % k
    actions = np.random.default_rng(0).integers(0, k, n)
    phi = np.hstack([np.eye(k)[right] * 2.0, np.ones((n, 1))])
    events = Events(phi, actions, (actions == right) * 1.0, np.full(n, 1.0 / k), np.arange(n) // k % FOLDS, k)
    return events, right


@lru_cache
def learned_from_a_small_log() -> tuple[corrected.Learned, offset_tree.Learned]:
    events, _ = log(90, 3)
    return corrected.learn(events), offset_tree.learn(events)


def who_plays(direct, robust, tree):
    """The learners as learned, but for the arms that they would have played in the log that is judged."""
    learned, grown = learned_from_a_small_log()
    q_hat = np.full((len(direct), 3), 1.0 / 3.0)
    return replace(learned, direct=direct, played=robust, q_hat=q_hat), grown._replace(played=tree)


@pytest.mark.parametrize(
    ("direct", "robust", "tree", "expected"),
    [
        (0.9, 0.9, 0.9, "direct_method"),
        (0.5, 0.9, 0.9, "doubly_robust"),
        (0.5, 0.5, 0.9, "offset_tree"),
        (0.5, 0.7, 0.9, "offset_tree"),
        (0.9, 0.5, 0.5, "direct_method"),
    ],
)
def test_the_learner_with_the_shown_gain_is_chosen_and_ties_stay_simple(direct, robust, tree, expected):
    """Each plays the right arm in so large a share of rounds; the value says so."""
    events, right = log(3000, 3)

    def playing(share):
        return np.where(np.arange(3000) % 100 < 100 * share, right, (right + 1) % 3)

    chosen = choose(events, *who_plays(playing(direct), playing(robust), playing(tree)))

    assert chosen.learner == expected
    assert chosen.values == pytest.approx(
        {"direct_method": direct, "doubly_robust": robust, "offset_tree": tree}, abs=0.05
    )
    assert chosen.reason.count("standard error") == 2


def test_a_gain_within_its_error_changes_nothing():
    """One round better among 3,000 may be luck."""
    events, right = log(3000, 3)
    wrong = (right + 1) % 3
    luck = wrong.copy()
    first = int(np.flatnonzero(events.targets == 1.0)[0])
    luck[first] = right[first]

    chosen = choose(events, *who_plays(wrong, wrong, luck))

    assert chosen.values["offset_tree"] > chosen.values["direct_method"]
    assert chosen.learner == "direct_method"


def test_what_real_learners_learned_can_be_compared():
    """By the cross-fitted arms that each carries: where the context tells the right arm, all know it."""
    events, _ = log(300, 3)

    learned, grown = corrected.learn(events), offset_tree.learn(events)
    chosen = choose(events, learned, grown)

    assert chosen.values["doubly_robust"] == pytest.approx(learned.chosen.value)
    assert min(chosen.values.values()) > 0.9


@pytest.mark.parametrize("learn", [corrected.learn, offset_tree.learn])
def test_no_event_teaches_nothing(learn):
    """Rather than a policy made of nothing."""
    events, _ = log(90, 3)

    with pytest.raises(NotEnoughDataError, match="the log has none"):
        learn(events.where(np.arange(0)))


def test_one_event_decides_nothing():
    """A difference needs a standard error."""
    events, _ = log(1, 2)

    with pytest.raises(NotEnoughDataError, match="two events"):
        choose(events, *learned_from_a_small_log())
