"""The doubly robust learner for logs that may bend: a logistic reward model, its correction, and the choice of both.

    q(x, a) = model(x, a) + shift_a . phi(x)

`model` is a direct method (direct_method.py); `shift` regresses the residuals of its pseudo-outcomes,
1[a = a_i] (r_i - q_hat(x_i, a)) / p_i, on one Gram matrix that all arms share (see doubly_robust.py for why the
residuals, and why strongly shrunk). Link, penalty and shrinkage are those of highest doubly robust value on folds that
neither model nor correction saw, played as they would be: `play` may spend a budget. "No correction" is the first
choice: the log has to speak against it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import combinations
from typing import NamedTuple

import numpy as np

from bandits.errors import NotEnoughDataError
from bandits.learners import direct_method
from bandits.learners.direct_method import LINKS, Link, RewardModel
from bandits.learners.doubly_robust import FOLDS, MAX_WEIGHT, Events, dr_scores, playing, weights
from bandits.learners.grid import on_grid
from bandits.learners.ridge import moments
from bandits.types import Mask, Matrix, Vector

PENALTIES = (0.3, 3.0, 30.0)  # of the reward model: the first ones tried, a factor of MORE apart
MORE = 10.0
CORRECTIONS = (30_000.0, 3_000.0, 300.0)  # penalties of the correction, in events, tried after inf: none
_MOST = 30_000.0  # the largest penalty of a reward model: it leaves the mean reward of each arm


@dataclass(frozen=True, slots=True, eq=False)
class Correction:
    """The correction's pass, given a frozen reward model: exact sums that add, subtract and merge in any order.

    gram: (D, D) sums of phi phi' over all events.   moment: (K, D) sums of phi * weighted residual by arm.
    """

    gram: Matrix
    moment: Matrix

    @classmethod
    def of(cls, events: Events, q_hat: Matrix) -> Correction:
        """Fold events.   q_hat: (n, K), not fitted on these events."""
        residual = events.targets - q_hat[np.arange(len(q_hat)), events.actions]
        moment = moments(events.phi, events.actions, on_grid(residual * weights(events), MAX_WEIGHT), events.k)
        return cls(events.phi.T @ events.phi, moment)

    def __add__(self, other: Correction) -> Correction:
        return Correction(self.gram + other.gram, self.moment + other.moment)

    def __sub__(self, other: Correction) -> Correction:
        return Correction(self.gram - other.gram, self.moment - other.moment)

    def solve(self, penalty: float) -> Matrix:
        """shift, (K, D).   penalty: > 0, in events; inf gives zeros."""
        if np.isinf(penalty):
            return np.zeros_like(self.moment)
        return np.asarray(np.linalg.solve(self.gram + penalty * np.eye(len(self.gram)), self.moment.T).T)


@dataclass(frozen=True, slots=True, eq=False)
class Corrected:
    """A reward model and its correction.   shift: (K, D)."""

    model: RewardModel
    shift: Matrix

    def predict(self, phi: Matrix) -> Matrix:
        """q_hat, (n, K), reward; the correction may carry it a little out of [0, 1].   phi: (n, D)."""
        return self.model.predict(phi) + phi @ self.shift.T


@dataclass(frozen=True, slots=True)
class Choice:
    """One way to learn and what it would have earned.

    value, standard_error: reward, cross-validated DR. The highest value of many is a little too high, by luck.
    """

    link: Link
    penalty: float
    correction: float
    value: float
    standard_error: float


@dataclass(frozen=True, slots=True)
class Evidence:
    """How far the log can be trusted about the learned policy.

    ess: effective sample size (sum w)² / sum w² of the weights w = pi(a) / p, in events.   largest: weight.
    clipped: share of events whose 1/p was clipped.   bias: clipping biases the value by at most this much, times the
    error of q_hat: an estimate of the mean over what is played of max(0, 1 - MAX_WEIGHT p).
    """

    ess: float
    largest: float
    clipped: float
    bias: float


@dataclass(frozen=True, slots=True, eq=False)
class Learned:
    """What was learned, what was chosen, all that was tried, in order, and what models without an event say of it.

    Each (n, K), cross-fitted:   yardstick: q_hat of the model that predicts best.   direct, best: q_hat of the best
    direct method (`q` without its shift) and of the best of all, both chosen without the row's fold as well.
    """

    q: Corrected
    chosen: Choice
    tried: tuple[Choice, ...]
    evidence: Evidence
    yardstick: Matrix
    direct: Matrix
    best: Matrix


def greedily(q_hat: Matrix) -> Matrix:
    """Play the arm of highest q_hat, for sure."""
    return playing(q_hat.argmax(axis=1), q_hat.shape[1])


def learn(events: Events, play: Callable[[Matrix], Matrix] = greedily) -> Learned:
    """Learn from n events. Deterministic; permuting the arms permutes what is learned, but for ties.

    play: q_hat, (n, K), of these events -> action_probs, (n, K), of the policy that would use it.
    Raises NotEnoughDataError without events.
    """
    if not len(events.phi):
        raise NotEnoughDataError("a policy is learned from events, but the log has none; serve on and try again.")
    models = _reward_models(events)
    # One yardstick for all: the model that predicts best, since its residuals are the smallest.
    yardstick = min(models.values(), key=lambda q_hat: _loss(events, q_hat))

    def judged(q_hat: Matrix, link: Link, penalty: float, correction: float) -> _Tried:
        scores = dr_scores(events, yardstick, play(q_hat))
        error = float(scores.std(ddof=1) / np.sqrt(len(scores))) if len(scores) > 1 else np.inf
        return _Tried(Choice(link, penalty, correction, float(scores.mean()), error), q_hat, scores)

    straight = [judged(q_hat, link, penalty, np.inf) for (link, penalty), q_hat in models.items()]
    direct = max(straight, key=_value)
    link, penalty = direct.choice.link, direct.choice.penalty
    shifts = cross_fitted_shifts(events, link, penalty)
    bent = [judged(direct.q_hat + shift, link, penalty, correction) for correction, shift in shifts.items()]
    chosen = max([direct, *bent], key=_value).choice

    sums = (Correction.of(events.where(fold), direct.q_hat[fold]) for fold in _folds(events))
    shift = reduce(Correction.__add__, sums).solve(chosen.correction)
    model = direct_method.fit(events.phi, events.actions, events.targets, events.k, link, penalty)
    tried, best = [*straight, *bent], _crossed(events, [*straight, *bent])
    return Learned(
        Corrected(model, shift),
        chosen,
        tuple(one.choice for one in tried),
        evidence_of(events, play(best)),
        yardstick,
        _crossed(events, straight),
        best,
    )


class _Tried(NamedTuple):
    """A choice, its cross-fitted q_hat, (n, K), and its scores, (n,)."""

    choice: Choice
    q_hat: Matrix
    scores: Vector


def _value(tried: _Tried) -> float:
    return tried.choice.value


def _crossed(events: Events, tried: Sequence[_Tried]) -> Matrix:
    """q_hat, (n, K), of what would have been chosen without the row's fold: luck in choosing flatters no row."""
    out = np.empty_like(tried[0].q_hat)
    for fold in _folds(events):
        if fold.any():
            out[fold] = max(tried, key=lambda one: float(one.scores[~fold].sum())).q_hat[fold]
    return out


def _folds(events: Events) -> list[Mask]:
    return [events.folds == fold for fold in range(FOLDS)]


def _loss(events: Events, q_hat: Matrix) -> float:
    """Mean squared error of the reward of the logged arm (Brier score)."""
    return float(np.square(events.targets - q_hat[np.arange(len(q_hat)), events.actions]).mean())


def _fit_without(events: Events, out: Mask, link: Link, penalty: float) -> RewardModel:
    rest = events.where(~out)
    return direct_method.fit(rest.phi, rest.actions, rest.targets, events.k, link, penalty)


def cross_fitted(events: Events, link: Link, penalty: float) -> Matrix:
    """q_hat, (n, K): each row from a model without its fold."""
    q_hat = np.empty((len(events.phi), events.k))
    for fold in _folds(events):
        if fold.any():
            q_hat[fold] = _fit_without(events, fold, link, penalty).predict(events.phi[fold])
    return q_hat


def _reward_models(events: Events) -> dict[tuple[Link, float], Matrix]:
    """Cross-fitted q_hat of every link and penalty; penalties go on rising while the largest predicts best."""
    out: dict[tuple[Link, float], Matrix] = {}
    for link in LINKS:
        losses: list[float] = []
        penalty = PENALTIES[0]
        while len(losses) < len(PENALTIES) or (losses[-1] < min(losses[:-1]) and penalty <= _MOST):
            out[link, penalty] = cross_fitted(events, link, penalty)
            losses.append(_loss(events, out[link, penalty]))
            penalty *= MORE
    return out


def cross_fitted_shifts(events: Events, link: Link, penalty: float) -> dict[float, Matrix]:
    """Corrections of q_hat, (n, K), by penalty: each row from residuals, and from models of them, without its fold."""
    folds = _folds(events)
    inner = np.empty((FOLDS, len(events.phi), events.k))  # [f]: rows of fold g from a model without f and g
    for a, b in combinations(range(FOLDS), 2):
        model = _fit_without(events, folds[a] | folds[b], link, penalty)
        inner[a, folds[b]], inner[b, folds[a]] = (
            model.predict(events.phi[folds[b]]),
            model.predict(events.phi[folds[a]]),
        )
    out = {correction: np.zeros((len(events.phi), events.k)) for correction in CORRECTIONS}
    for fold, held_out in enumerate(folds):
        sums = Correction.of(events.where(~held_out), inner[fold, ~held_out])
        for correction, shift in out.items():
            shift[held_out] = events.phi[held_out] @ sums.solve(correction).T
    return out


def evidence_of(events: Events, action_probs: Matrix) -> Evidence:
    """How far these n events can be trusted about a policy.   action_probs: (n, K)."""
    told = action_probs[np.arange(len(action_probs)), events.actions]
    w = told * weights(events)
    cut = told / events.propensities - w
    squares = float(np.square(w).sum())
    return Evidence(
        ess=float(w.sum()) ** 2 / squares if squares else 0.0,
        largest=float(w.max(initial=0.0)),
        clipped=float((events.propensities < 1.0 / MAX_WEIGHT).mean()),
        bias=float(cut.mean()),
    )
