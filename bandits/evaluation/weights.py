"""Importance weights, and how much of the log speaks for the target policy.

    w_i = pi_e(a_i | x_i) / pi_b(a_i | x_i)

An estimate is only as good as its overlap, so every estimate is shown with its Support.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from bandits.errors import EvidenceError, PropensityError, ShapeError
from bandits.types import Actions, LoggedFeedback, Matrix, Vector

ASTRAY = 5.0  # standard errors that the mean weight may lie from 1 before propensities are held to be wrong
ENOUGH = 200.0  # effective rounds; below 150 a nominal 95 % interval was measured to cover 83 to 93 %
_BLOCK = 2**13  # rows that are checked at once: they stay in the processor's cache
ROUNDING = 1e-9  # rows of probabilities sum to 1 within this

Verdict = Literal["ok", "not enough data", "no support", "wrong propensities", "no propensities"]


@dataclass(frozen=True, slots=True)
class Support:
    """What the log can say about one target policy.

    Enough is ENOUGH effective rounds in all, and for each arm its share of that: an arm that gets a share s of the
    target's mass needs 200 s. Were each arm's mean reward known that well, the error of the policy's value would be
    that of 200 rounds. An arm with a share below 1/200 would need less than one round, so none is asked of it.
    """

    n: int
    ess: float  # effective sample size, (sum w)^2 / sum w^2
    ess_least_arm: float  # the same over the rounds of the arm that has least for its share
    least_share: float  # the target's mass on that arm, in [0, 1]
    max_weight: float
    mean_weight: float  # near 1 when propensities are right and nothing is missing
    weight_error: float  # standard error of the mean weight
    unsupported: float  # share of the target's mass on arms that the log could not draw, in [0, 1]
    overlap: float  # mass that target and log have in common, the mean of sum_a min(pi_e, pi_b), in [0, 1]

    @property
    def astray(self) -> bool:
        """Whether the mean weight is too far from 1 for propensities that are right, with enough rounds to say so.

        Given support, weights average to 1 whatever the target: so this needs no reward.
        """
        return self.ess >= ENOUGH and abs(self.mean_weight - 1.0) > ASTRAY * self.weight_error + ROUNDING

    @property
    def evidence(self) -> float:
        """Effective rounds that a verdict may rest on, the one figure to compare with ENOUGH and to give the gate.

        The lesser of ess and of what it would be were every arm supported like the least; 0 without support, and where
        the propensities are wrong.
        """
        if self.unsupported > ROUNDING or self.astray:
            return 0.0
        return min(self.ess, self.ess_least_arm / self.least_share)

    @property
    def verdict(self) -> Verdict:
        """The first of: no support, wrong propensities, not enough data, ok. More rounds would cure the third alone."""
        if self.unsupported > ROUNDING:
            return "no support"
        if self.astray:
            return "wrong propensities"
        return "ok" if self.evidence >= ENOUGH else "not enough data"


def importance(feedback: LoggedFeedback, action_probs: Matrix) -> Vector:
    """Importance weights, (n,) >= 0, of the target policy `action_probs`, (n, K).

    Raises ShapeError, and PropensityError unless each row of `action_probs` is a distribution.
    """
    wanted = len(feedback), feedback.k
    _check_shape("action_probs", action_probs, wanted)
    weights, sure = np.empty(len(feedback)), True
    for start in range(0, len(weights), _BLOCK):  # checked and picked while the rows are in the cache
        rows = slice(start, start + _BLOCK)
        sure = sure and _surely_good(action_probs[rows])
        picked = of_actions(action_probs[rows], feedback.actions[rows])
        np.divide(picked, feedback.propensities[rows], out=weights[rows])
    if not sure:
        check_distributions(action_probs, wanted)
    return weights


def of_actions(matrix: Matrix, actions: Actions) -> Vector:
    """Entry of each row, (n,), in the column of its action; a copy.   matrix: (n, K)."""
    n, k = matrix.shape
    if not matrix.flags.c_contiguous:
        return matrix[np.arange(n), actions]
    places = np.arange(0, n * k, k)
    places += actions
    return matrix.ravel().take(places)  # several times quicker than a pair of index arrays


def support(feedback: LoggedFeedback, action_probs: Matrix) -> Support:
    """Diagnostics of the overlap between the log and the target policy `action_probs`, (n, K)."""
    w = importance(feedback, action_probs)
    n = len(w)
    if n == 0:
        return Support(0, 0.0, 0.0, 1.0, 0.0, 0.0, math.inf, 0.0, 0.0)
    shares = action_probs.mean(axis=0)
    totals, squares = (np.bincount(feedback.actions, x, feedback.k).astype(np.float64) for x in (w, w * w))
    per_arm = _ess(totals, squares)
    played = np.flatnonzero(shares >= min(1.0 / ENOUGH, shares.max()))
    least = played[np.argmin(per_arm[played] / shares[played])]
    return Support(
        n=n,
        ess=float(_ess(w.sum(), (w * w).sum())),
        ess_least_arm=float(per_arm[least]),
        least_share=float(shares[least]),
        max_weight=float(w.max()),
        mean_weight=float(w.mean()),
        weight_error=float(w.std(ddof=1) / math.sqrt(n)) if n > 1 else math.inf,
        unsupported=float(np.where(feedback.probabilities == 0.0, action_probs, 0.0).sum() / n),
        overlap=float(np.minimum(action_probs, feedback.probabilities).sum() / n),
    )


def check_probs(feedback: LoggedFeedback, action_probs: Matrix) -> None:
    """Raise ShapeError or PropensityError unless `action_probs` is one distribution over K arms per round."""
    check_distributions(action_probs, (len(feedback), feedback.k))


def check_q_hat(feedback: LoggedFeedback, q_hat: Matrix) -> None:
    """Raise ShapeError or EvidenceError unless `q_hat` is one finite estimate of reward per round and arm."""
    check_model(q_hat, (len(feedback), feedback.k))


def check_distributions(action_probs: Matrix, wanted: tuple[int, ...]) -> None:
    """As `check_probs`, where the shape, (n, K), is known from something else than a log."""
    _check_shape("action_probs", action_probs, wanted)
    if all(_surely_good(action_probs[start : start + _BLOCK]) for start in range(0, len(action_probs), _BLOCK)):
        return
    good = (np.abs(action_probs.sum(axis=1) - 1.0) <= ROUNDING) & (action_probs >= 0.0).all(axis=1)
    bad = np.flatnonzero(~good)
    if bad.size:
        raise PropensityError(
            f"action_probs must be >= 0 and sum to 1 within {ROUNDING:g} in each row, but got "
            f"{action_probs[bad[0]].tolist()} at rows {bad[:5].tolist()}; pass the target policy's own probabilities."
        )


def check_model(q_hat: Matrix, wanted: tuple[int, ...]) -> None:
    """As `check_q_hat`, where the shape, (n, K), is known from something else than a log."""
    _check_shape("q_hat", q_hat, wanted)
    if math.isfinite(np.einsum("nk->", q_hat)):
        return
    bad = np.flatnonzero(~np.isfinite(q_hat).all(axis=1))
    if bad.size:
        raise EvidenceError(
            f"q_hat must be finite, but got {q_hat[bad[0]].tolist()} at rows {bad[:5].tolist()}; "
            "leave an arm out of the policy rather than its estimate out of q_hat."
        )


def _surely_good(rows: Matrix) -> bool:
    """Cheap: a sum by einsum may differ from the other by rounding, so only one well inside the bound will do."""
    sums = np.einsum("nk->n", rows)
    return bool(
        rows.min(initial=0.0) >= 0.0 and sums.min() >= 1.0 - ROUNDING / 2.0 and sums.max() <= 1.0 + ROUNDING / 2.0
    )


def _check_shape(name: str, matrix: Matrix, wanted: tuple[int, ...]) -> None:
    if matrix.shape != wanted:
        raise ShapeError(
            f"{name} must have shape (n={wanted[0]}, k={wanted[1]}) to match feedback, but got {matrix.shape}."
        )


def _ess(total: Vector, squares: Vector) -> Vector:
    """(sum w)^2 / sum w^2; 0 where there is no weight at all."""
    return np.divide(total * total, squares, out=np.zeros_like(squares), where=squares > 0.0)
