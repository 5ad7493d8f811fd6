"""Facts about the choice among learners: the simplest one stays unless another shows its gain."""

from __future__ import annotations

import numpy as np
import pytest

from bandits.errors import EvidenceError, NotEnoughDataError
from bandits.learners.choice import choose

N = 3000


def scores(share: float, seed: int) -> np.ndarray:
    """Rounds of which so large a share earns 1."""
    return np.random.default_rng(seed).permutation(N) < share * N


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
    """The value of each is its mean; the reason tells every comparison."""
    shares = {"direct_method": direct, "doubly_robust": robust, "offset_tree": tree}
    chosen = choose({learner: scores(share, i) * 1.0 for i, (learner, share) in enumerate(shares.items())})

    assert chosen.learner == expected
    assert chosen.values == pytest.approx(shares)
    assert chosen.reason.count("standard error") == 2


def test_a_gain_within_its_error_changes_nothing():
    """One round better among 3,000 may be luck; that many are not (the negative control)."""
    simple = scores(0.5, 0) * 1.0
    luck, skill = simple.copy(), simple.copy()
    luck[np.flatnonzero(simple == 0.0)[:1]] = 1.0
    skill[np.flatnonzero(simple == 0.0)[:10]] = 1.0

    chosen = choose({"linear": simple, "offset_tree": luck})
    assert chosen.values["offset_tree"] > chosen.values["linear"]
    assert chosen.learner == "linear"
    assert "offset_tree does not gain more than a standard error on linear: +0.0003 ± 0.0003" in chosen.reason
    assert choose({"linear": simple, "offset_tree": skill}).learner == "offset_tree"


def test_alone_there_is_nothing_to_choose():
    """And that is the reason."""
    chosen = choose({"linear": scores(0.5, 0) * 1.0})

    assert (chosen.learner, chosen.reason, chosen.values) == ("linear", "linear alone was tried", {"linear": 0.5})


def test_one_round_decides_nothing():
    """A difference needs a standard error."""
    with pytest.raises(NotEnoughDataError, match="two rounds"):
        choose({"linear": np.ones(1), "offset_tree": np.ones(1)})


def test_a_score_that_is_not_finite_is_refused():
    """With the learner's name."""
    with pytest.raises(EvidenceError, match="offset_tree must be finite"):
        choose({"linear": np.ones(3), "offset_tree": np.array([1.0, np.nan, 1.0])})
