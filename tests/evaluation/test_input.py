"""Every public function of evaluation, and the gate, on bad or poor logs: a clear error, or an honest "cannot say".

A log is poor when it is whole but says little: `POOR`. It is bad when it makes no sense: such a log cannot even be
made (`TestLog`), and arguments that make no sense are refused by every function that takes them (`REFUSED`).
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from bandits.errors import EvidenceError, NotEnoughDataError, PropensityError, ShapeError
from bandits.evaluation import dm, dr, ips, sequences, sndr, snips, switch
from bandits.evaluation.intervals import betting, bootstrap, lower_bound, normal
from bandits.evaluation.moments import Moments, moments
from bandits.evaluation.report import evaluate, model_only, table
from bandits.evaluation.weights import _BLOCK, importance, of_actions, support
from bandits.night.gates import gate
from bandits.night.judging import means_before
from bandits.types import LoggedFeedback


def log(actions, probabilities, rewards, /, **changes):
    """A log whose propensities are those of the actions."""
    actions, p = np.asarray(actions, dtype=np.int64), np.asarray(probabilities, dtype=np.float64)
    n, k = p.shape
    columns = {
        "arms": tuple(f"arm-{a}" for a in range(k)),
        "schema": "none-1",
        "ids": tuple(map(str, range(n))),
        "times": np.arange(n, dtype=np.float64),
        "contexts": np.zeros((n, 1), dtype=np.float32),
        "actions": actions,
        "propensities": p[np.arange(n), np.clip(actions, 0, k - 1)],
        "probabilities": p,
        "rewards": np.asarray(rewards, dtype=np.float64),
        "costs": np.full(n, np.nan),
    }
    return LoggedFeedback(**{**columns, **changes})


def rows(row, n):
    return np.tile(np.asarray(row, dtype=np.float64), (n, 1))


def rare(n=400):
    """One round in which an arm of probability 1e-6 was drawn, that the target always plays: a weight of a million."""
    p, actions = rows([1.0 - 1e-6, 1e-6], n), np.zeros(n, int)
    actions[7] = 1
    return log(actions, p, np.ones(n)), rows([0.0, 1.0], n)


# What a whole log may lack, with a target: (log, target), and the verdict on it.
POOR = {
    "empty": ((log([], np.zeros((0, 2)), []), np.zeros((0, 2))), "not enough data"),
    "one round": ((log([0], [[0.5, 0.5]], [1.0]), np.array([[0.5, 0.5]])), "not enough data"),
    "one round of another arm": ((log([0], [[0.5, 0.5]], [1.0]), np.array([[0.0, 1.0]])), "not enough data"),
    "one arm, few rounds": ((log(np.zeros(9), np.ones((9, 1)), np.full(9, 0.5)), np.ones((9, 1))), "not enough data"),
    "a weight of a million": (rare(), "not enough data"),
    "mass where the log has none": (
        (log(np.zeros(400), rows([1.0, 0.0], 400), np.ones(400)), rows([0.5, 0.5], 400)),
        "no support",
    ),
    "all mass where the log has none": (
        (log(np.zeros(400), rows([1.0, 0.0], 400), np.ones(400)), rows([0.0, 1.0], 400)),
        "no support",
    ),
    "propensities that are not what was drawn with": (
        (log(np.arange(2000) % 5 == 0, rows([0.5, 0.5], 2000), np.ones(2000)), rows([0.9, 0.1], 2000)),
        "wrong propensities",
    ),
}
SCORES = {
    "ips": lambda f, t, q: ips.scores(f, t),
    "snips": lambda f, t, q: snips.scores(f, t),
    "dm": dm.scores,
    "dr": dr.scores,
    "sndr": sndr.scores,
    "switch": lambda f, t, q: switch.scores(f, t, q, switch.tune(f, t, q)),
}
RATIOS = ("snips", "sndr")


@pytest.mark.parametrize("name", POOR)
class TestPoorLogs:
    """Whole, but it says little. Nothing divides by zero, and nothing is claimed."""

    def case(self, name):
        (feedback, target), verdict = POOR[name]
        return feedback, target, np.full(target.shape, 0.5), verdict

    def test_support_says_what_is_wrong_and_lends_no_evidence(self, name):
        feedback, target, _, verdict = self.case(name)
        with np.errstate(all="raise"):
            found = support(feedback, target)
        assert found.verdict == verdict
        assert found.evidence < 200.0

    @pytest.mark.parametrize("estimator", SCORES)
    def test_scores_are_finite_or_the_ratio_says_that_there_is_none(self, name, estimator):
        feedback, target, q_hat, _ = self.case(name)
        with np.errstate(all="raise"):
            if estimator in RATIOS and not importance(feedback, target).any():
                with pytest.raises(NotEnoughDataError, match=rf"none of {len(feedback)} is; wait until"):
                    SCORES[estimator](feedback, target, q_hat)
            else:
                found = SCORES[estimator](feedback, target, q_hat)
                assert found.shape == (len(feedback),)
                assert np.isfinite(found).all()

    def test_the_report_has_no_value_without_a_verdict(self, name):
        feedback, target, q_hat, verdict = self.case(name)
        with np.errstate(all="raise"):
            found = evaluate(feedback, {"it": target}, q_hat)
        assert {row.verdict for row in found} == {verdict}
        assert table(found).count("cannot say") == 6

    def test_without_propensities_the_model_alone_speaks_and_is_flagged(self, name):
        _, target, q_hat, _ = self.case(name)
        with np.errstate(all="raise"):
            (row,) = model_only({"it": target}, q_hat)
        assert (row.estimator, row.verdict, row.n) == ("dm", "no propensities", len(target))
        assert "cannot say" in table([row])

    def test_sequences_hold_every_value_that_they_cannot_rule_out(self, name):
        """The truth is not known of such a log: whatever is claimed lies in range and in order."""
        feedback, target, q_hat, verdict = self.case(name)
        other = feedback.probabilities
        with np.errstate(all="raise"):
            for found in (
                sequences.value(feedback, target, None, 0.05),
                sequences.value(feedback, target, q_hat, 0.05),
                sequences.advantage(feedback, target, other, q_hat, 0.05),
            ):
                assert -1.0 <= found.low <= found.high <= 1.0
                if verdict == "not enough data" and "one arm" not in name:
                    assert found.high - found.low > 0.5 or (target == other).all()

    def test_ranges_are_finite(self, name):
        feedback, target, _, _ = self.case(name)
        with np.errstate(all="raise"):
            found = (
                *ips.score_range(feedback, target),
                *dr.score_range(feedback, target),
                dr.difference_bound(feedback, target, feedback.probabilities),
            )
        assert np.isfinite(found).all()

    def test_the_gate_holds(self, name):
        """With the evidence that support lends, however good the candidate looks."""
        feedback, target, q_hat, _ = self.case(name)
        with np.errstate(all="raise"):
            scores = dr.scores(feedback, target, q_hat)
            found = gate(
                scores,
                np.zeros(len(feedback)),
                alpha=0.05,
                night=1,
                bound=dr.score_range(feedback, target)[1],
                ess=support(feedback, target).evidence,
            )
        assert found.outcome == "hold"
        assert found.reason.startswith("not enough data")

    def test_the_model_of_means_needs_no_round(self, name):
        feedback, target, _, _ = self.case(name)
        assert means_before(feedback).shape == target.shape


class TestLog:
    """A log that makes no sense cannot be made."""

    @pytest.mark.parametrize(
        ("change", "error", "message"),
        [
            ({"propensities": np.array([0.5, 0.0])}, PropensityError, r"propensity must be > 0, but got .* rows \[1\]"),
            ({"propensities": np.array([0.5, math.nan])}, PropensityError, r"propensity must be > 0, but got .*\[1\]"),
            ({"propensities": np.array([0.5, 1.5])}, PropensityError, r"propensity must be at most 1, but got .*\[1\]"),
            ({"propensities": np.array([0.5, math.inf])}, PropensityError, r"must be at most 1, but got .*inf.*\[1\]"),
            ({"propensities": np.array([0.5])}, ShapeError, r"propensities must have shape \(2,\), but got \(1,\)"),
            ({"rewards": np.array([math.nan, 1.0])}, ShapeError, r"reward must be in \[0, 1\], but got .*nan.*\[0\]"),
            ({"rewards": np.array([0.0, 1.01])}, ShapeError, r"reward must be in \[0, 1\], but got .*1\.01.*\[1\]"),
            ({"rewards": np.array([-0.01, 1.0])}, ShapeError, r"reward must be in \[0, 1\], but got .*-0\.01.*\[0\]"),
            ({"actions": np.array([0, 2])}, ShapeError, r"action must be in 0\.\.1, but got 2 at \[1\]"),
            ({"actions": np.array([-1, 1])}, ShapeError, r"action must be in 0\.\.1, but got -1 at \[0\]"),
        ],
    )
    def test_what_makes_no_sense_is_refused_with_its_rows(self, change, error, message):
        with pytest.raises(error, match=message):
            log([0, 1], rows([0.5, 0.5], 2), [0.0, 1.0], **change)


GOOD = log(np.arange(6) % 2, rows([0.5, 0.5], 6), np.arange(6) / 5.0)
HALF = rows([0.5, 0.5], 6)
BAD_TARGETS = {
    "a negative probability": (rows([1.5, -0.5], 6), PropensityError, "action_probs must be >= 0 and sum to 1"),
    "a row that sums to .9": (rows([0.5, 0.4], 6), PropensityError, "action_probs must be >= 0 and sum to 1"),
    "not a number": (rows([math.nan, 0.5], 6), PropensityError, "action_probs must be >= 0 and sum to 1"),
    "another arm": (np.full((6, 3), 1 / 3), ShapeError, r"action_probs must have shape \(n=6, k=2\)"),
    "another round": (np.full((7, 2), 0.5), ShapeError, r"action_probs must have shape \(n=6, k=2\)"),
    "a vector": (np.full(6, 0.5), ShapeError, r"action_probs must have shape \(n=6, k=2\)"),
}
BAD_MODELS = {
    "not a number": (rows([math.nan, 0.5], 6), EvidenceError, "q_hat must be finite"),
    "infinite": (rows([math.inf, 0.5], 6), EvidenceError, "q_hat must be finite"),
    "both infinities": (rows([math.inf, -math.inf], 6), EvidenceError, "q_hat must be finite"),
    "another arm": (np.full((6, 3), 1 / 3), ShapeError, r"q_hat must have shape \(n=6, k=2\)"),
    "a vector": (np.full(6, 0.5), ShapeError, r"q_hat must have shape \(n=6, k=2\)"),
}
TAKE_A_TARGET = {
    **{name: lambda t, scores=scores: scores(GOOD, t, HALF) for name, scores in SCORES.items()},
    "switch.scores": lambda t: switch.scores(GOOD, t, HALF, 1.0),
    "importance": lambda t: importance(GOOD, t),
    "support": lambda t: support(GOOD, t),
    "ips.score_range": lambda t: ips.score_range(GOOD, t),
    "dr.score_range": lambda t: dr.score_range(GOOD, t),
    "difference_bound": lambda t: dr.difference_bound(GOOD, t, HALF),
    "difference_bound, other": lambda t: dr.difference_bound(GOOD, HALF, t),
    "value": lambda t: sequences.value(GOOD, t, HALF, 0.05),
    "value by ips": lambda t: sequences.value(GOOD, t, None, 0.05),
    "advantage": lambda t: sequences.advantage(GOOD, t, HALF, HALF, 0.05),
    "advantage, other": lambda t: sequences.advantage(GOOD, HALF, t, HALF, 0.05),
    "evaluate": lambda t: evaluate(GOOD, {"it": t}, HALF),
    "model_only": lambda t: model_only({"it": t}, HALF),
}
TAKE_A_MODEL = {
    **{name: lambda q, scores=SCORES[name]: scores(GOOD, HALF, q) for name in ("dm", "dr", "sndr", "switch")},
    "switch.scores": lambda q: switch.scores(GOOD, HALF, q, 1.0),
    "value": lambda q: sequences.value(GOOD, HALF, q, 0.05),
    "advantage": lambda q: sequences.advantage(GOOD, HALF, HALF, q, 0.05),
    "evaluate": lambda q: evaluate(GOOD, {"it": HALF}, q),
}
TAKE_SCORES = {
    "moments": moments,
    "bootstrap": lambda x: bootstrap(x, 0.05, np.random.default_rng(0), 10),
    "betting": lambda x: betting(x, 0.05, low=-1.0, high=1.0),
    "lower_bound": lambda x: lower_bound(x, 0.05, low=-1.0, high=1.0),
    "gate, candidate": lambda x: gate(x, np.zeros(3), alpha=0.05, night=1, bound=1.0, ess=300.0),
    "gate, incumbent": lambda x: gate(np.zeros(3), x, alpha=0.05, night=1, bound=1.0, ess=300.0),
}
TAKE_ALPHA = {
    "normal": lambda a: normal(Moments(), a),
    "bootstrap": lambda a: bootstrap(np.zeros(3), a, np.random.default_rng(0), 10),
    "betting": lambda a: betting(np.zeros(3), a, low=0.0, high=1.0),
    "lower_bound": lambda a: lower_bound(np.zeros(3), a, low=0.0, high=1.0),
    "value": lambda a: sequences.value(GOOD, HALF, HALF, a),
    "advantage": lambda a: sequences.advantage(GOOD, HALF, HALF, HALF, a),
    "evaluate": lambda a: evaluate(GOOD, {"it": HALF}, HALF, a),
    "model_only": lambda a: model_only({"it": HALF}, HALF, a),
    "gate": lambda a: gate(np.zeros(3), np.zeros(3), alpha=a, night=1, bound=1.0, ess=300.0),
}


class TestRefused:
    """Arguments that make no sense, by every function that takes them."""

    @pytest.mark.parametrize("function", TAKE_A_TARGET)
    @pytest.mark.parametrize("bad", BAD_TARGETS)
    def test_a_target_that_is_no_distribution(self, function, bad):
        target, error, message = BAD_TARGETS[bad]
        if function == "model_only":
            message = message.replace("n=6, k=2", r"n=\d, k=\d")
        with pytest.raises(error, match=message):
            TAKE_A_TARGET[function](target)

    @pytest.mark.parametrize("function", TAKE_A_MODEL)
    @pytest.mark.parametrize("bad", BAD_MODELS)
    def test_a_model_that_is_no_estimate(self, function, bad):
        q_hat, error, message = BAD_MODELS[bad]
        with pytest.raises(error, match=message):
            TAKE_A_MODEL[function](q_hat)

    @pytest.mark.parametrize("function", TAKE_SCORES)
    @pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e200])
    def test_scores_that_are_not_finite(self, function, bad):
        with pytest.raises(EvidenceError, match=r"must be finite, but got .* at rows \[1\]"):
            TAKE_SCORES[function](np.array([0.0, bad, 0.0]))

    @pytest.mark.parametrize("function", TAKE_ALPHA)
    @pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, math.nan])
    def test_an_error_rate_that_is_none(self, function, alpha):
        with pytest.raises(EvidenceError, match=r"alpha must be in \(0, 1\), but got"):
            TAKE_ALPHA[function](alpha)

    @pytest.mark.parametrize("times", [[0, 2, 1, 3, 4, 5], [0, math.nan, 1, 2, 3, 4]])
    def test_time_that_runs_backwards_is_refused_where_order_matters(self, times):
        """By sequences; what sums up a log does not ask for its order."""
        mixed = replace(GOOD, times=np.array(times, dtype=np.float64))
        for q_hat in (None, HALF):
            with pytest.raises(EvidenceError, match="rounds must be in order of time"):
                sequences.value(mixed, HALF, q_hat, 0.05)
        with pytest.raises(EvidenceError, match="rounds must be in order of time"):
            sequences.advantage(mixed, HALF, HALF, HALF, 0.05)
        assert evaluate(mixed, {"it": HALF}, HALF) == evaluate(GOOD, {"it": HALF}, HALF)


class TestBlocks:
    """Weights are checked and picked block by block, which nobody may notice."""

    @pytest.mark.parametrize("n", [1, _BLOCK - 1, _BLOCK, _BLOCK + 1, 2 * _BLOCK + 3])
    @pytest.mark.parametrize("order", ["C", "F"])
    def test_weights_are_those_of_the_whole(self, n, order):
        rng = np.random.default_rng(n)
        logging, target = (np.asarray(rng.dirichlet(np.ones(3), n), order=order) for _ in range(2))
        feedback = log(rng.integers(3, size=n), logging, rng.random(n))
        wanted = target[np.arange(n), feedback.actions] / feedback.propensities
        assert (importance(feedback, target) == wanted).all()
        assert (of_actions(target, feedback.actions) == target[np.arange(n), feedback.actions]).all()

    @pytest.mark.parametrize("bad", [0, _BLOCK - 1, _BLOCK, 2 * _BLOCK + 2])
    def test_a_bad_row_is_found_in_whichever_block(self, bad):
        n = 2 * _BLOCK + 3
        feedback, target = log(np.zeros(n), rows([0.5, 0.5], n), np.zeros(n)), rows([0.5, 0.5], n)
        target[bad] = [1.5, -0.5]
        with pytest.raises(PropensityError, match=rf"but got \[1\.5, -0\.5\] at rows \[{bad}\]"):
            importance(feedback, target)
