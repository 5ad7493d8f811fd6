"""Facts about the measuring of estimators: the truth is the truth, the reward model is cross-fitted, a bias shows."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bandits.evaluation import dm, dr, ips, sndr, snips, switch
from bandits.learners.doubly_robust import FOLDS
from benchmarks import ope
from benchmarks.synthetic import LOGGING, TARGET, known, softmax

ROW = {"n", "logging", "estimator", "rel_error", "rmse", "ms", "rss_mib"}
MEASURED = {"ms", "rss_mib", "snips_ms", "dr_ms", "reward_model_s"}
RNG = np.random.default_rng


def test_a_small_run_prints_rows_and_a_summary(capsys):
    """The keys of the contract; the same seeds give the same rows, times and memory apart."""
    outputs = []
    for _ in range(2):
        ope.main(["--n", "300", "--reps", "2"])
        outputs.append([json.loads(line) for line in capsys.readouterr().out.splitlines()])

    *rows, summary = outputs[0]
    assert [(row["logging"], row["estimator"]) for row in rows] == [
        (logging, name) for logging in ("mild", "adverse") for name in ope.ESTIMATORS
    ]
    assert list(ope.ESTIMATORS) == ["ips", "snips", "dm", "dr", "sndr", "switch"]
    assert all(row.keys() == ROW and row["ms"] > 0.0 and row["rss_mib"] > 0 for row in rows)
    assert summary["summary"] is True
    assert summary["dr_over_snips"].keys() == {"mild", "adverse"}
    assert summary["bars"]["snips_ms"] is None  # its bar speaks of a million rounds
    assert summary["met"] in (True, False)
    unmeasured = [[{k: v for k, v in line.items() if k not in MEASURED} for line in output] for output in outputs]
    assert unmeasured[0] == unmeasured[1]


@pytest.mark.parametrize("options", [["--n", "10"], ["--n", "many"], ["--reps", "0"], ["--seed", "-1"], ["--n"]])
def test_bad_options_end_with_a_usage_error(options, capsys):
    """Exit 2 and a sentence, before anything runs."""
    with pytest.raises(SystemExit) as caught:
        ope.main(options)

    assert caught.value.code == 2
    assert "usage:" in capsys.readouterr().err


@pytest.mark.parametrize("logging", LOGGING)
def test_the_truth_is_what_drawing_by_the_target_earns(logging):
    """Rewards drawn afresh by the target, from the expectation that its probabilities betray: pi = softmax(10 q)."""
    one = known(20_000, 4, 3, LOGGING[logging], RNG(1))
    by_target = np.log(one.target) / TARGET  # q, up to a constant by row
    by_logging = np.log(one.feedback.probabilities) / LOGGING[logging]
    weights = one.target[np.arange(20_000), one.feedback.actions] / one.feedback.propensities

    assert np.ptp(by_logging - by_target, axis=1).max() < 1e-9  # both policies speak of the same q
    error = weights * one.feedback.rewards - one.truth
    assert abs(error.mean()) < 4.0 * error.std() / np.sqrt(20_000)
    assert abs((error + 0.1).mean()) > 4.0 * error.std() / np.sqrt(20_000)  # the negative control


def test_actions_are_drawn_with_the_logged_probabilities():
    """The inverse weights of each arm average to 1 within 4 standard errors."""
    log = known(50_000, 5, 3, LOGGING["adverse"], RNG(2)).feedback

    for arm in range(5):
        p = log.probabilities[:, arm]
        error = np.sqrt(((1.0 - p) / p).sum())
        assert abs(((log.actions == arm) / p).sum() - len(log)) < 4.0 * error


def test_softmax_rows_are_distributions():
    """Also of scores that would overflow."""
    rows = softmax(np.array([[1e4, 0.0, -1e4], [0.0, np.log(2.0), np.log(5.0)]]))

    assert rows[0].tolist() == [1.0, 0.0, 0.0]
    assert rows[1] == pytest.approx([0.125, 0.25, 0.625])


def test_the_reward_model_never_saw_the_round_that_it_speaks_of():
    """Changing one reward changes what is said of other folds, and nothing that is said of its own."""
    log = known(2_000, 4, 3, LOGGING["mild"], RNG(3)).feedback
    folds = np.arange(len(log)) % FOLDS
    before = ope.reward_model(log)
    log.rewards[5] = 1.0 - log.rewards[5]
    after = ope.reward_model(log)

    own = folds == folds[5]
    assert (before[own] == after[own]).all()
    assert (before[~own] != after[~own]).any()


def test_a_biased_estimator_has_the_larger_error():
    """The negative control: doubly robust scores that are a tenth of the reward too high."""
    biased = {"dr": dr.scores, "biased": lambda log, target, q_hat: dr.scores(log, target, q_hat) + 0.1}
    by = {row["estimator"]: row for row in ope.table(ope.measure(5_000, "mild", 3, 0, biased))}

    assert by["biased"]["rmse"] > 3.0 * by["dr"]["rmse"]
    assert by["biased"]["rel_error"] > 3.0 * by["dr"]["rel_error"]
    assert by["biased"]["rmse"] == pytest.approx(0.1, abs=4.0 * by["dr"]["rmse"])


def test_the_estimators_are_the_product_s_own():
    """What the benchmark names is what the product computes."""
    one = known(500, 4, 3, LOGGING["mild"], RNG(4))
    log, target, q_hat = one.feedback, one.target, ope.reward_model(one.feedback)

    assert (ope.ESTIMATORS["ips"](log, target, q_hat) == ips.scores(log, target)).all()
    assert (ope.ESTIMATORS["snips"](log, target, q_hat) == snips.scores(log, target)).all()
    assert (ope.ESTIMATORS["dm"](log, target, q_hat) == dm.scores(log, target, q_hat)).all()
    assert (ope.ESTIMATORS["dr"](log, target, q_hat) == dr.scores(log, target, q_hat)).all()
    assert (ope.ESTIMATORS["sndr"](log, target, q_hat) == sndr.scores(log, target, q_hat)).all()
    tau = switch.tune(log, target, q_hat)
    assert (ope.ESTIMATORS["switch"](log, target, q_hat) == switch.scores(log, target, q_hat, tau)).all()


def _cell(n, logging, snips_error, dr_error, seconds):
    errors = {name: [0.5] for name in ope.ESTIMATORS} | {"snips": [snips_error], "dr": [dr_error]}
    return ope.Cell(n, logging, errors, [0.5], {name: [seconds] for name in errors}, [0.5], 100.0)


@pytest.mark.parametrize(
    ("change", "bar"),
    [
        ({}, None),
        ({"dr_error": 0.0012}, "dr_over_snips_mild"),
        ({"snips_error": 0.0018, "dr_error": 0.0018}, "best_rel_error_mild"),
        ({"seconds": 0.05}, "snips_ms"),
    ],
)
def test_each_bar_is_missed_alone(change, bar):
    """A figure beyond its bar turns that bar, and `met`, to false; the others stay."""
    good = {"snips_error": 0.001, "dr_error": 0.001, "seconds": 0.03}
    cells = [_cell(n, x, **(good | change if x == "mild" else good)) for n in (ope.MIDDLE, ope.LARGE) for x in LOGGING]
    found = ope.verdict(cells)

    assert [name for name, met in found["bars"].items() if not met] == ([bar] if bar else [])
    assert found["met"] is (bar is None)


def test_a_log_that_is_merged_from_parts_has_the_same_scores():
    """Bit for bit, wherever the cut: no row depends on its neighbours. Ratios are no sums: not theirs."""
    one = known(101, 10, 3, LOGGING["adverse"], RNG(6))
    q_hat = ope.reward_model(one.feedback)
    for scores in (ope.ESTIMATORS["ips"], dm.scores, dr.scores):
        whole = scores(one.feedback, one.target, q_hat)
        for cut in (1, 4, 50, 99):
            rows = np.arange(101) < cut
            parts = [scores(one.feedback.where(part), one.target[part], q_hat[part]) for part in (rows, ~rows)]
            assert np.array_equal(np.concatenate(parts), whole)
    rows = np.arange(101) < 50
    parts = [snips.scores(one.feedback.where(part), one.target[part]) for part in (rows, ~rows)]
    assert not np.array_equal(np.concatenate(parts), snips.scores(one.feedback, one.target))
