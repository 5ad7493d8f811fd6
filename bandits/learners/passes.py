"""The passes of the nightly learner: each maps a slab of events to exact sums, given what earlier passes froze.

    Contexts       scale of the contexts, draws of each arm
    Rewards        Gram matrices and moments of reward (per fold and arm) and of log-cost (per arm), dollars paid
    Expected       dollars that the price model expected of each arm's own events
    Corrections    moments of the doubly robust correction
    Prices         dollars of each arm over all contexts, and their range
    Spending       dollars of the policy at each price of a dollar: the points of its curve

and, between them, the small solves that freeze their results. A pass holds arrays only, so it can be sent anywhere;
its sums come back and are added (sums.py). Mathematics: ridge.py, doubly_robust.py, cost.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bandits.learners.cost import CostModel, log_cost
from bandits.learners.doubly_robust import FOLDS, LEVEL, MAX_WEIGHT, Parameters, shift, squared
from bandits.learners.grid import limbs, on_grid
from bandits.learners.linear_policy import PriceCurve
from bandits.learners.ridge import Gram, rowwise
from bandits.learners.scaling import ContextSums, Scaler
from bandits.learners.slab import Features, Slab
from bandits.learners.sums import Sums
from bandits.types import Mask, Matrix, Vector

_POINTS = 256  # of the price curve
_BLOCK = 2**13  # rows whose estimates are looked at once


@dataclass(frozen=True, slots=True, eq=False)
class Contexts:
    """Pass 1: sums of contexts, and how often each of the k arms was drawn."""

    k: int

    def __call__(self, slab: Slab) -> Sums:
        """The sums of these events."""
        found = ContextSums.of(slab.contexts)
        drawn = np.bincount(slab.actions, minlength=self.k)
        return Sums({"total": found.total, "squares": found.squares, "drawn": drawn})


def scaler_of(sums: Sums) -> Scaler:
    """What pass 1 freezes."""
    return ContextSums(int(sums["drawn"].sum()), sums["total"], sums["squares"]).scaler()


@dataclass(frozen=True, slots=True, eq=False)
class Rewards:
    """Pass 2, of reward per fold and arm; with `priced`, of log-cost per arm as well, over events whose cost is known.

    gram: (F, K, D, D).   moment: (F, K, D).   count: (F, K).   cost_…: the same without folds.   paid: (K, 2) limbs.
    square: (K,) of targets, in steps of the grid squared: exact up to 2³¹ events.
    """

    features: Features
    k: int
    folds: int = FOLDS
    priced: bool = True

    def __call__(self, slab: Slab) -> Sums:
        """The sums of these events."""
        k, d = self.k, slab.features(self.features, np.zeros(1, np.int64)).shape[1]
        gram, moment, count = np.zeros((self.folds, k, d, d)), np.zeros((self.folds, k, d)), np.zeros((self.folds, k))
        square, unpriced = np.zeros(k), np.zeros((k, d, d))
        cost_moment, cost_count, paid = np.zeros((k, d)), np.zeros(k), np.zeros((k, 2))
        logs = log_cost(slab.costs) if self.priced else slab.costs
        for fold, arm, rows in slab.groups(k, self.folds):
            phi = slab.features(self.features, rows)
            gram[fold, arm] += phi.T @ phi  # of a matrix with itself, BLAS computes one half
            moment[fold, arm] += slab.targets[rows] @ phi
            count[fold, arm] += len(rows)
            square[arm] += slab.targets[rows] @ slab.targets[rows]
            if self.priced:
                known = np.isfinite(slab.costs[rows])
                silent = phi[~known]
                unpriced[arm] += silent.T @ silent
                cost_moment[arm] += logs[rows] @ phi
                cost_count[arm] += known.sum()
                paid[arm] += limbs(slab.costs[rows][known]).sum(axis=0)
        sums = {"gram": gram, "moment": moment, "count": count, "square": square}
        if self.priced:  # most costs are known: what is taken away is less than what would be added
            cost_gram = gram.sum(axis=0) - unpriced
            sums |= {"cost_gram": cost_gram, "cost_moment": cost_moment, "cost_count": cost_count, "paid": paid}
        return Sums(sums)


def grams_of(sums: Sums) -> list[Gram]:
    """The Gram of each fold."""
    return [Gram(*parts) for parts in zip(sums["gram"], sums["moment"], sums["count"], strict=True)]


def cost_gram_of(sums: Sums) -> Gram:
    """The Gram of log-cost."""
    return Gram(sums["cost_gram"], sums["cost_moment"], sums["cost_count"])


def reward_models(grams: list[Gram], parameters: Parameters, siblings: Gram | None = None) -> Matrix:
    """Weights, (F + 1, F, K, D): [w, f] left out folds w and f, and judges the events of f; w = F leaves out only f.

    siblings: sums of events that are nobody's fold, since they are of other scopes.
    """
    k, d = grams[0].moment.shape
    models = np.zeros((FOLDS + 1, FOLDS, k, d))
    for f in range(FOLDS):
        for w in range(f + 1, FOLDS + 1):
            models[w, f] = _solve(grams, {w, f}, parameters, siblings)
            if w < FOLDS:
                models[f, w] = models[w, f]
    return models


@dataclass(frozen=True, slots=True, eq=False)
class Expected:
    """What exp(weights . phi) makes of each arm's own events whose cost is known.   usd: (K, 2) limbs."""

    features: Features
    weights: Matrix  # (K, D) of log-cost

    def __call__(self, slab: Slab) -> Sums:
        """The sums of these events."""
        usd = np.zeros((len(self.weights), 2))
        for _, arm, rows in slab.groups(len(usd), folds=1):
            phi = slab.features(self.features, rows[np.isfinite(slab.costs[rows])])
            usd[arm] += limbs(np.exp(rowwise(phi, self.weights[arm : arm + 1]))).sum(axis=(0, 1))
        return Sums({"usd": usd})


@dataclass(frozen=True, slots=True, eq=False)
class Corrections:
    """Pass 3: what the log proves about the errors of pass 2 (doubly_robust.py).

    models: (F + 1, F, K, D), see reward_models.   moment: (F + 1, K, D), and squares of weights, (F + 1, K): [w] over
    the events outside fold w.
    """

    features: Features
    models: Matrix

    def __call__(self, slab: Slab) -> Sums:
        """The sums of these events."""
        _, _, k, d = self.models.shape
        moment, squares = np.zeros((FOLDS + 1, k, d)), np.zeros((FOLDS + 1, k))
        weights = np.minimum(1.0 / slab.propensities, MAX_WEIGHT)
        for fold, arm, rows in slab.groups(k):
            phi = slab.features(self.features, rows)
            others = [w for w in range(FOLDS + 1) if w != fold]
            residual = slab.targets[rows][:, None] - rowwise(phi, self.models[others, fold, arm])
            moment[others, arm] += on_grid(residual * weights[rows][:, None], 2 * MAX_WEIGHT).T @ phi
            squares[others, arm] += squared(weights[rows]).sum()
        return Sums({"moment": moment, "squares": squares})


def corrected(grams: list[Gram], sums: Sums, parameters: Parameters, siblings: Gram | None = None) -> Matrix:
    """Weights, (F + 1, K, D), of the Doubly Robust learner that left out fold w; w = F left out none.

    Without siblings equal to doubly_robust.fit(…, without=w) bit for bit. The correction is proven by own events alone.
    """
    moment, squares = sums["moment"], sums["squares"]
    found = np.empty_like(moment)
    for w in range(FOLDS + 1):
        gram = reduce(np.add, [one.gram.sum(axis=0) for fold, one in enumerate(grams) if fold != w])
        found[w] = _solve(grams, {w}, parameters, siblings) + shift(gram, moment[w], squares[w], parameters)
    return found


def spread(grams: list[Gram], squares: Vector, parameters: Parameters, siblings: Gram | None = None) -> Matrix:
    """Covariances, (K, D, D), of the weights of the reward model that left out no fold: how sure they are.

    squares: (K,) of the scope's own targets. Their whole variance stands for the noise's: penalties are in events, so
    the priors are as wide as the targets are, however much of them the model explains. So it errs on the wide side; and
    two events of a uniform target come before the first, as a few that are all alike prove nothing.
    The correction is not in it: it is what the log proves of errors that no such model can know of.
    """
    own = reduce(Gram.__add__, grams)
    n, total = float(own.count.sum()), float(own.moment[:, -1].sum())  # the last feature is the constant 1
    scatter = max(float(squares.sum()) - total * total / max(n, 1.0), 0.0)
    everyone = _total(grams, set(), parameters, siblings)
    covariances = everyone.covariances(parameters.shared, parameters.own, LEVEL)
    return (scatter + 2.0 / 12.0) / (n + 2.0) * covariances


def _solve(grams: list[Gram], without: set[int], parameters: Parameters, siblings: Gram | None) -> Matrix:
    return _total(grams, without, parameters, siblings).solve(parameters.shared, parameters.own, LEVEL)


def _total(grams: list[Gram], without: set[int], parameters: Parameters, siblings: Gram | None) -> Gram:
    total = reduce(Gram.__add__, [one for fold, one in enumerate(grams) if fold not in without])
    if siblings is not None and parameters.siblings > 0.0:
        total += siblings.scaled(parameters.siblings)
    return total


@dataclass(frozen=True, slots=True, eq=False)
class Priced:
    """Dollars of each arm over all contexts, (K, 2) limbs, of n events; the least and the most of any (no subtraction:
    an extreme cannot be taken back).
    """

    n: int
    usd: Matrix
    low: float
    high: float

    def __add__(self, other: Priced) -> Priced:
        low, high = min(self.low, other.low), max(self.high, other.high)
        return Priced(self.n + other.n, self.usd + other.usd, low, high)

    @property
    def mean(self) -> Vector:
        """USD per request of each arm, (K,)."""
        return np.asarray(self.usd.sum(axis=1) / self.n)

    def points(self) -> Vector:
        """Prices of a dollar, (m,) rising from 0, between which every choice of arms flips."""
        return np.concatenate([[0.0], np.geomspace(1e-3 / self.high, 1e2 / self.low, _POINTS - 1)])


@dataclass(frozen=True, slots=True, eq=False)
class Prices:
    """Pass 4: what each arm would have cost."""

    features: Features
    cost: CostModel

    def __call__(self, slab: Slab) -> Priced:
        """The sums of these events."""
        found = []
        for start in range(0, len(slab), _BLOCK):
            rows = np.arange(start, min(start + _BLOCK, len(slab)))
            usd = self.cost.predict(slab.features(self.features, rows))
            found.append(Priced(len(rows), limbs(usd).sum(axis=0), float(usd.min()), float(usd.max())))
        return reduce(Priced.__add__, found)


@dataclass(frozen=True, slots=True, eq=False)
class Spending:
    """Pass 5: dollars of the policy at each price of a dollar, each event scored by the model that left it out.

    models: (F, K, D).   prices: (m,).   allowed: (K,).   chosen: (m, 2) limbs.   explored: (2,) limbs.   n: events.
    """

    features: Features
    models: Matrix
    cost: CostModel
    prices: Vector
    allowed: Mask

    def __call__(self, slab: Slab) -> Sums:
        """The sums of these events."""
        found = []
        for fold in range(FOLDS):
            mine = np.flatnonzero(slab.folds == fold)
            for start in range(0, max(len(mine), 1), _BLOCK):
                phi = slab.features(self.features, mine[start : start + _BLOCK])
                found.append(spent(rowwise(phi, self.models[fold]), self.cost.predict(phi), self.allowed, self.prices))
        return reduce(Sums.__add__, found)


def spent(q_hat: Matrix, cost_hat: Matrix, allowed: Mask, prices: Vector) -> Sums:
    """The sums of Spending, of events with these estimates, (n, K) each, by models that left them out.

    As a dollar gets dearer an event's choice only ever goes to a cheaper arm, so what it chooses at two prices it
    chooses at all between them: the few prices at which it changes are found by halving.
    """
    q_hat, usd = q_hat[:, allowed], cost_hat[:, allowed]
    n, parts, steps = len(usd), limbs(usd), np.zeros((len(prices), 2))

    def chosen(rows: NDArray[np.int64], at: NDArray[np.int64]) -> NDArray[np.int64]:
        return (q_hat[rows] - prices[at, None] * usd[rows]).argmax(axis=1)

    rows, low, high = np.arange(n), np.zeros(n, np.int64), np.full(n, len(prices) - 1)
    here, there = chosen(rows, low), chosen(rows, high)
    steps[0] = parts[rows, here].sum(axis=0)
    while (changes := here != there).any():
        rows, low, high, here, there = (each[changes] for each in (rows, low, high, here, there))
        found = high - low == 1
        np.add.at(steps, high[found], parts[rows[found], there[found]] - parts[rows[found], here[found]])
        rows, low, high, here, there = (each[~found] for each in (rows, low, high, here, there))
        middle = (low + high) // 2
        between = chosen(rows, middle)
        rows, low, high = np.tile(rows, 2), np.concatenate([low, middle]), np.concatenate([middle, high])
        here, there = np.concatenate([here, between]), np.concatenate([between, there])
    return Sums({"chosen": steps.cumsum(axis=0), "explored": parts.sum(axis=(0, 1)), "n": np.array(n)})


def curve_of(sums: Sums, allowed: Mask, prices: Vector, floor: float) -> PriceCurve:
    """The price curve that the sums of Spending draw, for a policy with this floor."""
    n = int(sums["n"])
    chosen, explored = sums["chosen"].sum(axis=1) / n, float(sums["explored"].sum()) / (n * allowed.sum())
    return PriceCurve(prices, np.minimum.accumulate((1.0 - floor) * chosen + floor * explored))


def arrays_of(frozen: object) -> Mapping[str, NDArray[Any]]:
    """All arrays that a pass holds, by path, and its numbers as arrays: what tells it from another of its kind."""
    found: dict[str, NDArray[Any]] = {}
    for name in (field.name for field in fields(frozen)):  # type: ignore[arg-type]
        value = getattr(frozen, name)
        if is_dataclass(value):
            found[f"{name}.{type(value).__name__}"] = np.zeros(0)
            found |= {f"{name}.{below}": array for below, array in arrays_of(value).items()}
        elif value is not None:
            found[name] = np.asarray(value)
    return found
