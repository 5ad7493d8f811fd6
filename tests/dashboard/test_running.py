"""The interval that narrows as rounds come in: nested, true at every look, and decided only when it should be."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from bandits.evaluation import dr, sequences
from bandits.what_if.counterfactual import Log, Models, fit
from dashboard.figures import ALPHA
from dashboard.running import LOOKS, conclusion, running
from tests.dashboard.worlds import DOMAIN, PRICES, expected, truth, two_days

TRUTH = truth()


def known(log):
    """The true expectation as model."""
    n = len(log.feedback)
    return Models(expected(log.feedback.contexts), np.tile(PRICES, (n, 1)))


class TestRunning:
    """Policy less always one arm."""

    @pytest.mark.parametrize(("version", "arm"), [("explore", 1), ("000001", 0), ("000001", 2)])
    def test_the_last_look_is_the_confidence_sequence_of_these_rounds(self, version, arm):
        log = two_days(0)
        looks = running(log, known(log), version, arm)
        mine = log.where(log.policies == version).feedback
        always = np.tile(np.eye(3)[arm], (600, 1))
        q_hat = expected(mine.contexts)
        assert looks[-1].rounds == 600
        assert (looks[-1].low, looks[-1].high) == sequences.advantage(mine, mine.probabilities, always, q_hat, ALPHA)
        score = dr.scores(mine, mine.probabilities, q_hat) - dr.scores(mine, always, q_hat)
        assert looks[-1].mean == pytest.approx(score.mean(), abs=1e-12)

    def test_each_interval_lies_in_the_one_before_and_all_hold_the_truth(self):
        """Of 12 logs, 95 % should; and .3 beside the truth is ruled out in the end."""
        inside = ruled_out = 0
        for seed in range(12):
            log = two_days(seed)
            looks = running(log, known(log), "explore", 1)
            earned = (np.array([0.5, 0.4, 0.1]) @ TRUTH.rewards) - TRUTH.rewards[1]
            assert len(looks) == LOOKS
            for one, after in pairwise(looks):
                assert one.low <= after.low + 1e-6
                assert after.high <= one.high + 1e-6
            inside += all(look.low <= earned <= look.high for look in looks)
            ruled_out += looks[-1].high < earned + 0.3
        assert inside >= 11
        assert ruled_out >= 11

    def test_later_rounds_change_no_earlier_look(self):
        log = two_days(3)
        part = log.where(np.arange(1200) < 300)
        short, whole = running(part, known(part), "explore", 1), running(log, known(log), "explore", 1)
        early = {look.rounds: look for look in whole}
        both = [look for look in short if look.rounds in early]
        assert len(both) > 1
        for look in both:
            assert look == early[look.rounds]

    def test_rounds_that_tell_nothing_of_the_arm_are_left_out(self):
        log = two_days(1)
        probabilities = log.feedback.probabilities.copy()
        closed = (np.arange(1200) < 200) & (log.feedback.actions != 2)
        probabilities[closed] = [0.6, 0.4, 0.0]
        p = probabilities[np.arange(1200), log.feedback.actions]
        part = Log(replace(log.feedback, probabilities=probabilities, propensities=p), log.policies)
        assert running(part, known(part), "explore", 2)[-1].rounds == 600 - int(closed.sum())
        nothing = replace(log.feedback, probabilities=probabilities)
        assert running(Log(nothing, log.policies), known(log), "000009", 0) == []

    def test_what_is_said_is_what_the_interval_says(self):
        log = two_days(2, n=3000)
        models = fit(log.feedback, DOMAIN)
        better = running(log, models, "explore", 0)
        assert "Not known yet" in conclusion(better[:2], "explore", "cheap")
        assert conclusion(better, "explore", "cheap").startswith(
            "Policy explore is better than always cheap: between +"
        )
        assert "worse than always good" in conclusion(running(log, models, "explore", 1), "explore", "good")
        assert conclusion([], "a", "b") == "No round of a tells anything of always b."
