"""Offset Tree: which of two? K - 1 times, from the leaves up (Beygelzimer & Langford 2009, "The Offset Tree for
Learning with Partial Labels").

A node compares the winners of its two subtrees, left L and right R, both decided by the nodes below. It learns only
from events whose logged arm *is* one of the two (filtering), by weighted least squares

    minimise  sum_i 1/p_i (s_i (r_i - b_i) - w . phi_i)²  +  penalty |w|²        s = +1 for R, -1 for L

so that w . phi estimates half of reward(R) - reward(L), whatever offset b is subtracted, as long as b does not know
r_i. The paper subtracts 1/2, which minimises the largest error; `model` subtracts the cross-fitted mean reward of the
two arms in this context, a control variate that leaves less noise. Arms whose successes look alike are paired low,
where nothing else disturbs the comparison. Every pass is a fold into exact sums (see grid.py): parts merge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import combinations
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bandits.errors import NotEnoughDataError, ShapeError
from bandits.learners.doubly_robust import FOLDS, MAX_WEIGHT, Events, dr_scores, playing
from bandits.learners.grid import STEP, on_grid
from bandits.types import Actions, Mask, Matrix, Vector

PENALTIES = (10.0, 30.0, 100.0, 300.0)  # that `learn` tries, in events
_REWARD_PENALTY = 10.0  # of the reward models behind the offset `model`
_WEIGHT_STEP = 2.0**-5  # 1/p is rounded to this (at most 1.6 % off), so that products of three stay exact
_CONSTANT = 1e-4  # of the penalty: the constant is all but free


@dataclass(frozen=True, slots=True)
class Parameters:
    """How a tree learns.   penalty: of every node, in events (see ridge.py).   offset: what is subtracted from r."""

    penalty: float = 30.0
    offset: Literal["half", "model"] = "model"


@dataclass(frozen=True, slots=True, eq=False)
class Sums:
    """Weighted least squares of one regressor, as exact sums: they add, subtract and merge in any order.

    gram: (D, D) sums of w phi phi'.   moment: (D,) sums of w phi t.   weight, count: sums of w and of 1.
    """

    gram: Matrix
    moment: Vector
    weight: float
    count: float

    @classmethod
    def of(cls, phi: Matrix, targets: Vector, weights: Vector) -> Sums:
        """Fold n events.   phi: (n, D) on the grid.   targets: (n,) on the grid.   weights: (n,), see importance."""
        weighted = phi * weights[:, None]
        return cls(weighted.T @ phi, weighted.T @ targets, float(weights.sum()), float(len(phi)))

    def __add__(self, other: Sums) -> Sums:
        return Sums(
            self.gram + other.gram, self.moment + other.moment, self.weight + other.weight, self.count + other.count
        )

    def __sub__(self, other: Sums) -> Sums:
        return Sums(
            self.gram - other.gram, self.moment - other.moment, self.weight - other.weight, self.count - other.count
        )

    def solve(self, penalty: float) -> Vector:
        """Weights, (D,); zeros without events.   penalty: in events of average weight."""
        if self.count == 0.0:
            return np.zeros_like(self.moment)
        ridge = np.full(len(self.moment), penalty * self.weight / self.count)
        ridge[-1] *= _CONSTANT
        from scipy.linalg import solve  # noqa: PLC0415  (only who learns pays for scipy, not who decides)

        return solve(self.gram + np.diag(ridge), self.moment, assume_a="pos")


@dataclass(frozen=True, slots=True, eq=False)
class OffsetTree:
    """A learned tree. Node i has the number K + i; a number below K is an arm; the last node is the root.

    children: (K - 1, 2), each smaller than its parent.   weights: (K - 1, D): the right child's winner is better
    where weights . phi > 0. Raises ShapeError for numbers that form no tree.
    """

    children: NDArray[np.int64]
    weights: Matrix

    def __post_init__(self) -> None:
        nodes, numbers = len(self.children), self.children.ravel().tolist()
        below = all(child < self.k + i // 2 for i, child in enumerate(numbers))
        if sorted(numbers) != list(range(2 * nodes)) or not below or self.weights.shape[:1] != (nodes,):
            raise ShapeError(
                f"children must hold each of 0..{2 * nodes - 1} once, below its parent, and weights a row a node, but "
                f"got {self.children.tolist()} and weights of shape {self.weights.shape}; grow the tree with fit()."
            )

    @property
    def k(self) -> int:
        """Number of arms."""
        return len(self.children) + 1

    def choose(self, phi: Matrix, allowed: Mask | None = None) -> Actions:
        """The winner of the tournament among allowed arms, (n,).   phi: (n, D).   allowed: (n, K), default all."""
        return self.winners(phi @ self.weights.T, allowed)

    def winners(self, scores: Matrix, allowed: Mask | None = None) -> Actions:
        """The same of the nodes' scores, (n, K - 1)."""
        won = _leaves(len(scores), self.k, allowed)
        for (left, right), score in zip(self.children.tolist(), scores.T, strict=True):
            won.append(_play(won[left], won[right], score))
        return won[-1]

    def describe(self, arms: Sequence[str], features: Sequence[str], shown: int = 3) -> str:
        """The rules as text, root first, each with its strongest features.

        features: names of the first columns of phi, in standard deviations; the waves that follow them are summed up.
        """
        return "\n".join(self._lines(self.k + len(self.children) - 1, arms, features, shown, ""))

    def _lines(self, number: int, arms: Sequence[str], features: Sequence[str], shown: int, indent: str) -> list[str]:
        if number < self.k:
            return [f"{indent}{arms[number]}"]
        left, right = self.children[number - self.k].tolist()
        rule = _rule(self.weights[number - self.k], features, shown)
        return [
            f"{indent}if {rule} > 0:",
            *self._lines(right, arms, features, shown, indent + "    "),
            f"{indent}else:",
            *self._lines(left, arms, features, shown, indent + "    "),
        ]


def importance(propensities: Vector) -> Vector:
    """1/p, (n,), clipped at MAX_WEIGHT and rounded to 2⁻⁵."""
    return np.round(np.minimum(1.0 / propensities, MAX_WEIGHT) / _WEIGHT_STEP) * _WEIGHT_STEP


@dataclass(frozen=True, slots=True, eq=False)
class Centres:
    """Where each arm is, and where it succeeds: exact sums.   all, good: (K, D).   weight, reward: (K,)."""

    all: Matrix
    good: Matrix
    weight: Vector
    reward: Vector

    @classmethod
    def of(cls, events: Events) -> Centres:
        """Fold the events' contexts by arm, weighted by 1/p, once as they are and once by their reward."""
        parts = [events.actions == arm for arm in range(events.k)]
        w = importance(events.propensities)
        wr = w * events.targets
        return cls(
            np.stack([events.phi[part].T @ w[part] for part in parts]),
            np.stack([events.phi[part].T @ wr[part] for part in parts]),
            np.array([w[part].sum() for part in parts]),
            np.array([wr[part].sum() for part in parts]),
        )

    def __add__(self, other: Centres) -> Centres:
        return Centres(
            self.all + other.all, self.good + other.good, self.weight + other.weight, self.reward + other.reward
        )

    def __sub__(self, other: Centres) -> Centres:
        return Centres(
            self.all - other.all, self.good - other.good, self.weight - other.weight, self.reward - other.reward
        )

    def shape(self) -> NDArray[np.int64]:
        """Children, (K - 1, 2), of a balanced tree that pairs, level by level, the arms nearest in where they succeed.

        An arm without success stands where no context speaks for it.
        """
        seen, won = np.maximum(self.weight, 1e-9), np.maximum(self.reward, 1e-9)
        places = list(np.where(self.reward[:, None] > 0.0, self.good / won[:, None] - self.all / seen[:, None], 0.0))
        children: list[tuple[int, int]] = []
        level = list(range(len(places)))
        while len(level) > 1:
            pairs = sorted((float(np.square(places[a] - places[b]).sum()), a, b) for a, b in combinations(level, 2))
            paired: set[int] = set()
            above = []
            for _, a, b in pairs:
                if not paired & {a, b}:
                    paired |= {a, b}
                    above.append(len(places))
                    places.append(0.5 * (places[a] + places[b]))
                    children.append((a, b))
            level = [number for number in level if number not in paired] + above
        return np.array(children, dtype=np.int64).reshape(-1, 2)


def node_sums(events: Events, offsets: Matrix, left: Actions, right: Actions) -> Sums:
    """The pass of one node, given the frozen nodes below it.

    offsets: (n, K), what is known of each arm's reward without the event.   left, right: (n,) winners of the subtrees,
    -1 for none: then there is nothing to compare.
    """
    compared = (left >= 0) & (right >= 0)
    heard = np.flatnonzero(compared & ((events.actions == left) | (events.actions == right)))
    sign = np.where(events.actions[heard] == right[heard], 1.0, -1.0)
    offset = 0.5 * (offsets[heard, left[heard]] + offsets[heard, right[heard]])
    targets = on_grid(sign * (events.targets[heard] - offset), 1.0)
    return Sums.of(events.phi[heard], targets, importance(events.propensities[heard]))


def fit(events: Events, offsets: Matrix, penalty: float, allowed: Mask | None = None) -> OffsetTree:
    """Learn the shape, then every node from the leaves up.   offsets: (n, K), see node_sums.   allowed: (K,)."""
    children = Centres.of(events).shape()
    weights = np.zeros((len(children), events.phi.shape[1]))
    won = _leaves(len(events.phi), events.k, _rows(allowed, len(events.phi)))
    for node, (left, right) in enumerate(children.tolist()):
        weights[node] = node_sums(events, offsets, won[left], won[right]).solve(penalty)
        won.append(_play(won[left], won[right], events.phi @ weights[node]))
    return OffsetTree(children, weights)


class Learned(NamedTuple):
    """A tree and how it was chosen.

    values: (len(PENALTIES),) cross-validated doubly robust value of each penalty.   played: (n,) cross-fitted arms,
    of the penalty that is best without the row's fold.
    """

    tree: OffsetTree
    parameters: Parameters
    values: Vector
    played: Actions


def learn(events: Events, offset: Literal["half", "model"] = "model", allowed: Mask | None = None) -> Learned:
    """Learn a tree whose penalty is the one of highest off-policy value on folds that its trees did not see.

    allowed: (K,) arms that the tournament is held among, default all. Ties go to the smaller penalty.
    Raises NotEnoughDataError without events.
    """
    if not len(events.phi):
        raise NotEnoughDataError("a tree is learned from events, but the log has none; serve on and try again.")
    q_hats = _reward_models(events)
    played = np.zeros((len(PENALTIES), len(events.phi)), dtype=np.int64)
    for fold in range(FOLDS):
        out = events.folds == fold
        offsets = q_hats[1 + fold] if offset == "model" else np.full_like(q_hats[0], 0.5)
        for i, penalty in enumerate(PENALTIES):
            tree = fit(events.where(~out), offsets[~out], penalty, allowed)
            played[i, out] = tree.choose(events.phi[out], _rows(allowed, int(out.sum())))
    scores = np.array([dr_scores(events, q_hats[0], playing(arms, events.k)) for arms in played])
    values = scores.mean(axis=1)
    best = int(values.argmax())
    crossed = np.empty(len(events.phi), dtype=np.int64)
    for fold in range(FOLDS):  # luck in choosing the penalty flatters no row either
        out = events.folds == fold
        crossed[out] = played[int(scores[:, ~out].sum(axis=1).argmax()), out]
    offsets = q_hats[0] if offset == "model" else np.full_like(q_hats[0], 0.5)
    tree = fit(events, offsets, PENALTIES[best], allowed)
    return Learned(tree, Parameters(PENALTIES[best], offset), values, crossed)


def _reward_models(events: Events) -> Matrix:
    """q_hat, (1 + FOLDS, n, K), of one ridge an arm: [0] never saw the event's fold; [1 + f] nor fold f either."""
    n = len(events.phi)
    out = np.zeros((1 + FOLDS, n, events.k))
    parts = [events.folds == fold for fold in range(FOLDS)]
    for arm in range(events.k):
        sums = []
        for part in parts:
            mine = part & (events.actions == arm)
            sums.append(Sums.of(events.phi[mine], events.targets[mine], np.ones(int(mine.sum()))))
        total = reduce(Sums.__add__, sums)
        for fold, part in enumerate(parts):
            out[:, part, arm] = events.phi[part] @ (total - sums[fold]).solve(_REWARD_PENALTY)
        for a, b in combinations(range(FOLDS), 2):
            weights = (total - sums[a] - sums[b]).solve(_REWARD_PENALTY)
            out[1 + a, parts[b], arm] = events.phi[parts[b]] @ weights
            out[1 + b, parts[a], arm] = events.phi[parts[a]] @ weights
    return np.clip(out, 0.0, 1.0)


class OnlineOffsetTree:
    """The same tree, one event at a time: a shape given in advance, offset 1/2, nodes solved again as they grow.

    An event climbs from its arm's leaf; each node on the way learns from it, and it climbs on while its arm wins.
    A node's sums are those of the batch pass under the decisions made at the time.
    """

    def __init__(self, children: NDArray[np.int64], d: int, penalty: float = 30.0) -> None:
        """children: see OffsetTree.   d: features of phi, the constant included."""
        nodes = len(children)
        self.penalty = penalty
        self.tree = OffsetTree(children, np.zeros((nodes, d)))
        self._gram, self._moment = np.zeros((nodes, d, d)), np.zeros((nodes, d))
        self._weight, self._count, self._solve_at = np.zeros(nodes), np.zeros(nodes), np.ones(nodes)
        self._above = {
            int(child): (node, side) for node, pair in enumerate(children) for side, child in enumerate(pair)
        }

    @property
    def sums(self) -> list[Sums]:
        """What each node has heard so far."""
        return [
            Sums(self._gram[node].copy(), self._moment[node].copy(), float(self._weight[node]), float(count))
            for node, count in enumerate(self._count)
        ]

    def learn(self, phi: Vector, action: int, reward: float, propensity: float) -> None:
        """Learn from one event.   phi: (D,) on the grid.   reward: [0, 1]."""
        weight = round(min(1.0 / propensity, MAX_WEIGHT) / _WEIGHT_STEP) * _WEIGHT_STEP
        target = round(max(min(reward - 0.5, 1.0), -1.0) / STEP) * STEP
        weighted = weight * phi
        square = weighted[:, None] * phi
        number: int = action
        while number in self._above:
            node, rightward = self._above[number]
            # An arm that loses here is not what this node sends up, so the nodes above do not hear of it.
            wins = (phi @ self.tree.weights[node] > 0.0) == rightward
            self._gram[node] += square
            self._moment[node] += weighted * (target if rightward else -target)
            self._weight[node] += weight
            self._count[node] += 1.0
            self._solve(node)
            if not wins:
                return
            number = self.tree.k + node

    def _solve(self, node: int) -> None:
        """Anew, when what the node has heard has grown by a tenth."""
        if self._count[node] >= self._solve_at[node]:
            weights = self.tree.weights.copy()
            weights[node] = self.sums[node].solve(self.penalty)
            self.tree = replace(self.tree, weights=weights)
            self._solve_at[node] = max(self._count[node] + 1.0, 1.1 * self._count[node])


def _rows(allowed: Mask | None, n: int) -> Mask | None:
    return None if allowed is None else np.broadcast_to(allowed, (n, len(allowed)))


def _leaves(n: int, k: int, allowed: Mask | None) -> list[Actions]:
    """Each arm's own column, (n,); -1 where it may not play."""
    if allowed is None:
        return [np.full(n, arm, dtype=np.int64) for arm in range(k)]
    return [np.where(allowed[:, arm], arm, -1) for arm in range(k)]


def _play(left: Actions, right: Actions, score: Vector) -> Actions:
    """The winner of a node: the right one where the score is positive; who has no opponent wins."""
    return np.where((right >= 0) & ((score > 0.0) | (left < 0)), right, left)


def _rule(weights: Vector, features: Sequence[str], shown: int) -> str:
    """`+0.31 code -0.20 length +0.04 (waves: 0.52)`: the strongest features, the constant, the waves' length."""
    named = weights[: len(features)]
    strongest = sorted(range(len(named)), key=lambda i: (-abs(named[i]), i))[:shown]
    terms = [f"{named[i]:+.3f} {features[i]}" for i in strongest if named[i] != 0.0]
    waves = float(np.linalg.norm(weights[len(features) : -1]))
    terms.append(f"{weights[-1]:+.3f}")
    return " ".join(terms) + (f" (waves: {waves:.3f})" if waves else "")
