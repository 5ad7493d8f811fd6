"""The effect of one arm over another, overall and by group: known truth, enumeration, and logs that cannot say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bandits.errors import EvidenceError, UnknownArmError
from bandits.evaluation.effect import HOUR, compare, groups, render
from bandits.features import NAMES
from tests.logs import simulate, truth


def rough(log):
    """A model of the rewards that is wrong everywhere, by as much as a model may be."""
    return np.full((len(log), log.k), 0.5)


def acted(log):
    """One policy acted throughout."""
    return np.full(len(log), "explore")


def flat(contexts):
    """All arms earn .6, whatever the context."""
    return np.full((len(contexts), 3), 0.6)


class TestCompare:
    """Dear is always .85, cheap .5 + .3 tanh x1: the effect is known for every context."""

    @pytest.mark.parametrize("model", [rough, lambda log: np.clip(truth(log.contexts), 0, 1)])
    def test_the_true_effect_is_found_with_any_model(self, model):
        log = simulate(6000, 0, noise=0.05)
        one = compare(log, acted(log), model(log), "dear", "cheap", 0.05).overall
        earned = (0.85 - truth(log.contexts)[:, 0]).mean()
        assert abs(one.effect - earned) < 4.0 * one.error
        assert one.low < earned < one.high
        assert one.verdict == "better"
        wrong = truth(log.contexts)[:, 1].mean() - 0.5  # middle over cheap: the negative control
        assert abs(one.effect - wrong) > 4.0 * one.error

    def test_groups_have_the_effect_of_their_contexts(self):
        """By x1, on which cheap depends: the thirds differ, and each is right; by x0 they do not."""
        log = simulate(9000, 1, noise=0.05)
        found = compare(log, acted(log), rough(log), "dear", "cheap", 0.05, "x1")
        for one, (label, rows) in zip(found.groups, groups(log, "x1"), strict=True):
            earned = (0.85 - truth(log.contexts)[rows, 0]).mean()
            assert one.group == label
            assert abs(one.effect - earned) < 4.0 * one.error
            assert one.low < earned < one.high
        assert found.groups[0].low > found.groups[2].high
        assert found.differ < 1e-6
        assert compare(log, acted(log), rough(log), "dear", "cheap", 0.05, "x0").differ > 1e-3

    def test_all_groups_together_share_the_error_rate(self):
        log = simulate(4000, 12)
        third = compare(log, acted(log), rough(log), "dear", "cheap", 0.06, "x1").groups[1]
        rows = dict(groups(log, "x1"))[third.group]
        part = log.where(rows)
        alone = compare(part, acted(part), rough(part), "dear", "cheap", 0.02).overall
        assert (third.low, third.high, third.effect) == (alone.low, alone.high, alone.effect)

    def test_no_effect_is_not_found(self):
        """20 logs in which all arms earn alike; with .05 of effect, the same logs do find it more often than not."""
        said = [
            compare(log, acted(log), rough(log), "dear", "cheap", 0.05).overall.verdict
            for log in (simulate(3000, seed, expected=flat) for seed in range(20))
        ]
        assert said.count("hold") >= 19
        better = [
            compare(log, acted(log), rough(log), "dear", "cheap", 0.05).overall.verdict
            for log in (
                simulate(3000, seed, expected=lambda c: flat(c) + np.array([0.0, 0.0, 0.1])) for seed in range(5)
            )
        ]
        assert better.count("better") >= 3

    def test_a_choice_that_follows_the_context_does_not_confound_it(self):
        """Dear is drawn mostly where it is no better: the plain difference of means is far off, the effect is right."""
        rng = np.random.default_rng(3)
        log = simulate(8000, 3, noise=0.05)
        mostly = np.where(log.contexts[:, 1:2] > 0, [[0.1, 0.1, 0.8]], [[0.8, 0.1, 0.1]])
        actions = (rng.random(8000)[:, None] > mostly.cumsum(axis=1)).sum(axis=1)
        rewards = np.clip(truth(log.contexts)[np.arange(8000), actions] + rng.normal(0, 0.05, 8000), 0, 1)
        chosen = replace(
            log,
            actions=actions,
            probabilities=mostly,
            propensities=mostly[np.arange(8000), actions],
            rewards=rewards,
        )
        one = compare(chosen, acted(log), rough(chosen), "dear", "cheap", 0.05).overall
        earned = (0.85 - truth(log.contexts)[:, 0]).mean()
        plain = rewards[actions == 2].mean() - rewards[actions == 0].mean()
        assert abs(one.effect - earned) < 4.0 * one.error
        assert abs(plain - earned) > 4.0 * one.error

    def test_it_changes_sign_with_the_arms_and_is_nothing_against_itself(self):
        log = simulate(3000, 4)
        there, back = (
            compare(log, acted(log), rough(log), *pair, 0.05).overall for pair in (("dear", "cheap"), ("cheap", "dear"))
        )
        assert there.effect == pytest.approx(-back.effect, abs=1e-12)
        assert (there.low, there.high) == pytest.approx((-back.high, -back.low), abs=1e-6)
        assert (there.verdict, back.verdict) == ("better", "worse")
        same = compare(log, acted(log), rough(log), "dear", "dear", 0.05).overall
        assert (same.effect, same.verdict) == (0.0, "hold")

    def test_rounds_in_which_one_could_not_be_drawn_are_left_out(self):
        log = simulate(4000, 5)
        probabilities = log.probabilities.copy()
        closed = (np.arange(4000) % 4 == 0) & (log.actions != 2)
        probabilities[closed] = [0.5, 0.5, 0.0]
        part = replace(log, probabilities=probabilities, propensities=probabilities[np.arange(4000), log.actions])
        found = compare(part, acted(part), rough(log), "dear", "cheap", 0.05)
        assert (found.left_out, found.overall.n) == (int(closed.sum()), 4000 - int(closed.sum()))
        assert compare(part, acted(part), rough(log), "middle", "cheap", 0.05).left_out == 0

    @pytest.mark.parametrize(
        ("log", "evidence"),
        [
            (simulate(150, 6), "not enough data"),
            (simulate(0, 6), "not enough data"),
            (simulate(2000, 6, probabilities=(0.5, 0.5, 0.0)), "not enough data"),
            (simulate(2000, 6, probabilities=(0.49, 0.49, 0.02)), "not enough data"),
        ],
    )
    def test_a_log_that_cannot_say_gives_no_number(self, log, evidence):
        found = compare(log, acted(log), rough(log), "dear", "cheap", 0.05, "x0" if len(log) else None)
        assert (found.overall.evidence, found.overall.verdict) == (evidence, "cannot say")
        assert found.overall.effect is None
        assert found.differ is None
        assert "Cannot say whether dear is better than cheap: not enough data." in render(found)

    def test_wrong_propensities_are_seen(self):
        log = simulate(4000, 7)
        wrong = np.tile([0.2, 0.2, 0.6], (4000, 1))
        lied = replace(log, probabilities=wrong, propensities=wrong[np.arange(4000), log.actions])
        assert compare(lied, acted(lied), rough(log), "dear", "cheap", 0.05).overall.evidence == "wrong propensities"

    def test_rounds_may_come_in_any_order(self):
        log = simulate(3000, 8)
        back = np.argsort(-log.times)
        turned = replace(
            log,
            **{
                name: getattr(log, name)[back]
                for name in ("times", "contexts", "actions", "propensities", "probabilities", "rewards", "costs")
            },
        )
        assert compare(turned, acted(turned), rough(log), "dear", "cheap", 0.05, "x0") == compare(
            log, acted(log), rough(log), "dear", "cheap", 0.05, "x0"
        )

    def test_policies_that_hardly_ever_draw_an_arm_do_not_drown_those_that_do(self):
        """1,500 rounds at .4 and .2, then 3,000 at .985 and .005: by all of them together it could not be told."""
        first = simulate(1500, 10, noise=0.05)
        later = simulate(3000, 11, noise=0.05, probabilities=(0.005, 0.01, 0.985))
        columns = ("contexts", "actions", "propensities", "probabilities", "rewards", "costs")
        log = replace(
            first,
            ids=first.ids + later.ids,
            times=np.arange(4500.0),
            **{name: np.concatenate([getattr(first, name), getattr(later, name)]) for name in columns},
        )
        versions = np.repeat(["explore", "000001"], [1500, 3000])
        found = compare(log, versions, rough(log), "dear", "cheap", 0.05)
        assert (found.faint, found.overall.n, found.overall.verdict) == (3000, 1500, "better")
        together = compare(log, acted(log), rough(log), "dear", "cheap", 0.05)
        assert together.faint == 0
        assert together.overall.verdict == "cannot say"
        alike = np.repeat(["a", "b"], [700, 800])
        assert compare(first, alike, rough(first), "dear", "cheap", 0.05).faint == 0

    def test_what_is_not_there_is_named(self):
        log = simulate(300, 9)
        with pytest.raises(UnknownArmError, match="one of cheap, middle, dear, but got 'x'"):
            compare(log, acted(log), rough(log), "x", "cheap", 0.05)
        with pytest.raises(EvidenceError, match="hour or a feature of vector-2, x0, x1, but got 'length'"):
            compare(log, acted(log), rough(log), "dear", "cheap", 0.05, "length")


class TestGroups:
    """Every round is in one group."""

    def test_two_values_are_two_groups_and_many_are_thirds(self):
        log = simulate(300, 0)
        contexts = log.contexts.copy()
        contexts[:, 0] = np.arange(300) % 2
        both = replace(log, contexts=contexts)
        assert [(label, int(rows.sum())) for label, rows in groups(both, "x0")] == [("x0 = 0", 150), ("x0 = 1", 150)]
        thirds = dict(groups(both, "x1"))
        assert list(thirds) == ["x1, lowest third", "x1, middle third", "x1, highest third"]
        assert [int(rows.sum()) for rows in thirds.values()] == [100, 100, 100]
        assert (sum(rows.astype(int) for rows in thirds.values()) == 1).all()

    def test_the_day_has_four_quarters_and_features_their_names(self):
        log = simulate(4, 0)
        days = replace(log, times=np.array([0.0, 6 * 3600.0, 86_400.0 + 13 * 3600.0, 23.9 * 3600.0]))
        assert [rows.tolist() for _, rows in groups(days, HOUR)] == np.eye(4, dtype=bool).tolist()
        names = NAMES["text-1"]
        contexts = np.zeros((4, len(names)), np.float32)
        contexts[2, names.index("has_code")] = 1.0
        text = replace(log, schema="text-1", contexts=contexts)
        assert [(label, rows.tolist()) for label, rows in groups(text, "has_code")][1] == (
            "has_code = 1",
            [False, False, True, False],
        )


def test_the_table_says_what_it_rests_on():
    """Both sides' effective rounds, what was left out, and the assumptions, in 80 columns."""
    log = replace(simulate(4000, 2), missing=17)
    text = render(compare(log, acted(log), rough(log), "dear", "cheap", 0.05, "x1"))
    assert max(map(len, text.splitlines())) <= 80
    assert text.startswith("dear is better than cheap")
    for words in ("17", "Assumes that probabilities", "x1, lowest third"):
        assert words in text
