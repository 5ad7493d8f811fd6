"""Our estimators against another library's, on the same feedback: what it said was recorded (golden/make_obp.py)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bandits.evaluation import dm, dr, ips, sndr, snips, switch
from bandits.evaluation.moments import moments
from bandits.types import LoggedFeedback
from tests.golden.make_obp import CASES, TAUS, feedback

RECORDED = json.loads((Path(__file__).parents[1] / "golden/obp.json").read_text())
ESTIMATORS = {
    "ips": lambda log, target, q_hat: ips.scores(log, target),
    "snips": lambda log, target, q_hat: snips.scores(log, target),
    "dm": dm.scores,
    "dr": dr.scores,
    "sndr": sndr.scores,
    **{f"switch {tau:g}": lambda *given, tau=tau: switch.scores(*given, tau) for tau in TAUS},
}


def rebuilt(case):
    """The feedback that was recorded, as a log, with its target and reward model."""
    rows = {name: np.array(column) for name, column in feedback(*CASES[case]).items()}
    n, k = rows["probabilities"].shape
    log = LoggedFeedback(
        arms=tuple(f"arm-{arm}" for arm in range(k)),
        schema="none-1",
        ids=tuple(map(str, range(n))),
        times=np.arange(n, dtype=np.float64),
        contexts=np.zeros((n, 1), dtype=np.float32),
        actions=rows["action"],
        propensities=rows["probabilities"][np.arange(n), rows["action"]],
        probabilities=rows["probabilities"],
        rewards=rows["reward"],
        costs=np.full(n, np.nan),
    )
    return log, rows["target"], rows["q_hat"]


def test_every_recorded_value_has_an_estimator_of_ours():
    assert RECORDED["made_by"]["sb-obp"] == "0.5.10"
    assert RECORDED["values"].keys() == CASES.keys()
    for case in CASES:
        assert RECORDED["values"][case].keys() == ESTIMATORS.keys()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_we_say_what_obp_said(case, estimator):
    """To 1e-9. The negative control: a target that gives a thousandth of one round to another arm is told apart."""
    log, target, q_hat = rebuilt(case)
    wanted = RECORDED["values"][case][estimator]
    assert abs(moments(ESTIMATORS[estimator](log, target, q_hat)).mean - wanted) < 1e-9
    light = np.flatnonzero(target[np.arange(len(log)), log.actions] / log.propensities < min(TAUS))[0]
    drawn = log.actions[light]
    target[light, [drawn, drawn - 1]] += (-1e-3, 1e-3)
    assert abs(moments(ESTIMATORS[estimator](log, target, q_hat)).mean - wanted) > 1e-9


def test_no_recorded_value_could_stand_for_another_s():
    """Where weights are heavy all estimators and thresholds differ."""
    assert min(np.diff(sorted(RECORDED["values"]["heavy weights"].values()))) > 1e-5
