"""Online learner: decides by upper confidence bounds over random features, and learns from each outcome in order.

Each arm is a ridge regression of its own rewards over phi = [linear z, waves, 1] (lift.py), prior N(0, I) on weights.
Two *heads* read the same exact sums: a straight one that sees only [linear z, 1] and a bent one that sees all of phi.
Their predictions are mixed by how well each foretold the rewards so far, so wide sparse contexts, where waves only
add noise, keep the straight line, and the rest bends. A mix of linear heads is again one weight matrix.

The bound is LinUCB's (Li et al. 2010, "A Contextual-Bandit Approach to Personalized News Article Recommendation")
with one covariance for all arms:

    u_a(x) = w_a . phi + optimism sqrt(phi' S phi  N / n_a),      S = (sum over all events of phi phi' + I)^-1

so that an arm's width costs nothing extra and an arm seldom played stays interesting everywhere. The best bound is
played, every other allowed arm with its share of the floor: the distribution that is drawn from is the one logged.

The first outcomes are folded one by one, later ones wait in a block that grows with the log (2 % of it), so that
learning is matrix products. What is folded when depends on the number of events alone: the same events give the same
state, bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import isnan, sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bandits.errors import ContextError, ShapeError
from bandits.learners.grid import on_grid
from bandits.learners.lift import Lift
from bandits.learners.ridge import Gram
from bandits.learners.scaling import CLIP, Scaler
from bandits.policy import FrozenPolicy, draw, with_floor
from bandits.types import Actions, Context, Mask, Matrix, Vector

KIND = "online"


@dataclass(frozen=True, slots=True)
class Options:
    """One configuration for everything; no data set has its own."""

    waves: int = 256  # random features; 0 is the linear learner
    bandwidth: float = 1.0  # of their kernel, in typical distances between contexts
    linear: float = 3.0  # prior deviation of the straight part, over a typical context
    bent: float = 6.0  # prior deviation of the waves' part
    optimism: float = 0.2  # widths that an arm's bound lies above its estimate
    floor: float = 0.0011  # probability shared evenly among the allowed arms; .001 is the least that a log can use
    width_waves: int = 128  # how many of the waves the width looks at
    temper: float = 5.0  # squared error, in rewards², that makes a head e times less likely: see `_mix`
    memory: float = 10_000.0  # events over which a head's errors are remembered; where all goes well none errs
    at_once: int = 500  # outcomes folded one by one; from then on they wait in blocks
    block: float = 0.02  # outcomes that may wait, as a share of those that came after these


DEFAULT = Options()
LINEAR = Options(waves=0)
_MOST = 512  # outcomes in a block
_SOON = 64.0  # events before which nothing is solved anew


class _Head:
    """Ridge per arm over some columns of phi: inverse covariances and weights, recursive between exact refreshes."""

    def __init__(self, k: int, columns: NDArray[np.intp]) -> None:
        d = len(columns)
        self.columns = columns
        self.whole = np.ix_(columns, columns)
        self.inverse = np.broadcast_to(np.eye(d), (k, d, d)).copy()
        self.weights = np.zeros((k, d))

    def add(self, arm: int, phi: Matrix, targets: Vector) -> None:
        """Fold a block of one arm's events (Woodbury).   phi: (b, d).   targets: (b,)."""
        inverse, weights = self.inverse[arm], self.weights[arm]
        half = phi @ inverse
        error = targets - phi @ weights
        if len(phi) == 1:
            gain = half[0] / sqrt(1.0 + float(half[0] @ phi[0]))
            inverse -= gain[:, None] * gain
            weights += gain * (float(error[0]) / sqrt(1.0 + float(half[0] @ phi[0])))
            return
        inner = np.eye(len(phi)) + half @ phi.T
        solved = np.linalg.solve(inner, np.column_stack([half, error]))
        inverse -= half.T @ solved[:, :-1]
        weights += half.T @ solved[:, -1]

    def refresh(self, arm: int, gram: Matrix, moment: Vector) -> None:
        """Solve the arm anew from its sums over phi: what rounding has piled up is gone."""
        inverse = np.linalg.inv(gram[self.whole] + np.eye(len(self.columns)))
        self.inverse[arm] = 0.5 * (inverse + inverse.T)
        self.weights[arm] = self.inverse[arm] @ moment[self.columns]


class Choice(NamedTuple):
    """One draw: the row that it was drawn from, (K,), the arm, and that arm's own entry."""

    probabilities: Vector
    action: int
    propensity: float


class OnlineLearner:
    """Decides and learns for K arms. Not thread-safe: its owner holds a lock, as the router does.

    scaler: frozen result of the pass before (scaling.py); contexts that come standardised take `Scaler.unit(d)`.
    """

    def __init__(self, k: int, scaler: Scaler, options: Options = DEFAULT) -> None:
        d = len(scaler.mean)
        if k < 2 or d < 1:
            raise ShapeError(f"an online learner needs at least 2 arms and 1 feature, but got k={k}, d={d}.")
        self.k, self.d, self.options = k, d, options
        self.lift = Lift.draw(scaler, options.waves, options.bandwidth, options.linear / sqrt(d), options.bent)
        width = d + options.waves + 1
        self._sums = Gram(np.zeros((k, width, width)), np.zeros((k, width)), np.zeros(k))
        straight = np.append(np.arange(d), width - 1)
        columns = [straight, np.arange(width)] if options.waves else [straight]
        self._heads = [_Head(k, c) for c in columns]
        self._losses = np.zeros(len(columns))
        seen = min(options.width_waves, options.waves)
        self._wide = np.concatenate([np.arange(d), [width - 1], np.arange(d, d + seen)])  # in order of the fast path
        self._wave_scale = sqrt(options.waves / seen) if seen else 1.0
        self._width = np.eye(len(self._wide))
        self._due = np.full(k, _SOON)  # counts at which an arm is solved anew
        self._width_due = _SOON
        self._contexts = np.empty((_MOST, d), np.float32)
        self._actions = np.empty(_MOST, np.int64)
        self._rewards = np.empty(_MOST)
        self._waiting = 0
        self._limit = 1
        self._fast = _Fast(self)

    def decide(self, context: Context, rng: np.random.Generator) -> Choice:
        """Draw one of all arms for one context, (d,): `probabilities`, then `draw`, at a tenth of their time.

        The row that it returns is read-only and shared. Raises ShapeError or ContextError for a context of
        another length or with a NaN; what is infinite is clipped like any outlier.
        """
        fast = self._fast
        best = fast.best(context)
        cumulative = fast.cumulative[best]
        action = int(cumulative.searchsorted(rng.random() * fast.total[best], side="right"))
        row = fast.rows[best]
        return Choice(row, action, fast.propensities[best][action])

    def decide_among(self, context: Context, allowed: Mask, rng: np.random.Generator, charge: Vector) -> Choice:
        """Draw one of the allowed arms, (K,), after charging each, (K,), what it costs in units of reward."""
        row = self.probabilities(context[None], allowed[None], charge)[0]
        return Choice(row, *draw(row, rng))

    def probabilities(self, contexts: Context, allowed: Mask, charge: Vector | None = None) -> Matrix:
        """Rows of probabilities, (n, K): the best bound, and the floor for every other allowed arm.

        contexts: (n, d).   allowed: (n, K).   charge: (K,) taken off each arm's bound, such as price times cost.
        """
        bounds = np.array([self.bounds(context) for context in contexts]).reshape(len(contexts), self.k)
        worth = np.where(allowed, bounds if charge is None else bounds - charge, -np.inf)
        return with_floor(np.eye(self.k)[worth.argmax(axis=1)], allowed, self.options.floor)

    def estimates(self, context: Context) -> Vector:
        """Expected reward of each arm, (K,), for one context, (d,)."""
        fast = self._fast
        fast.best(context)
        return np.asarray(fast.bounds - fast.weights[:, -1] * fast.phi[-1], dtype=np.float64)

    def bounds(self, context: Context) -> Vector:
        """Upper bound of each arm, (K,), for one context, (d,)."""
        self._fast.best(context)
        return self._fast.bounds.astype(np.float64)

    @property
    def events(self) -> int:
        """Outcomes learned from, those that wait included."""
        return int(self._sums.count.sum()) + self._waiting

    @property
    def sums(self) -> Gram:
        """The exact sums of all outcomes so far: what processes add up."""
        self.flush()
        return self._sums + _zero(self._sums)

    @property
    def mix(self) -> Vector:
        """Weight of each head: straight, then bent."""
        return _mix(self._losses, self.options.temper)

    def learn(self, context: Context, action: int, reward: float) -> None:
        """Learn from one outcome.   context: (d,) as it was decided on.   reward: [0, 1].

        Raises ShapeError or ContextError and learns nothing when one is out of range.
        """
        if not (0 <= action < self.k and 0.0 <= reward <= 1.0):
            raise ShapeError(
                f"action must be in 0..{self.k - 1} and reward in [0, 1], but got action {action!r}, reward {reward!r}."
            )
        if context.shape != (self.d,):
            raise ShapeError(f"a context must have shape ({self.d},), but got {context.shape}.")
        if isnan(context.dot(context)):
            raise ContextError(f"a context must have no NaN, but got {context.tolist()}; nothing was learned.")
        at = self._waiting
        self._contexts[at] = context
        self._actions[at] = action
        self._rewards[at] = reward
        self._waiting = at + 1
        if self._waiting >= self._limit:
            self.flush()

    def flush(self) -> None:
        """Fold the outcomes that wait."""
        n = self._waiting
        if not n:
            return
        self._waiting = 0
        contexts = self._contexts[:n]
        self._fold(self.lift.features(contexts), self._actions[:n], on_grid(self._rewards[:n], 1.0))
        self._next_block()
        self._fast.load(self)

    @classmethod
    def from_sums(
        cls, sums: Gram, scaler: Scaler, options: Options = DEFAULT, losses: Vector | None = None
    ) -> OnlineLearner:
        """The learner that has seen what the sums have seen, such as those of several processes added up.

        sums: of learners with the same scaler and options.   losses: (heads,) see `mix`; without, heads are even.
        """
        learner = cls(len(sums.count), scaler, options)
        if sums.moment.shape != learner._sums.moment.shape:
            raise ShapeError(f"sums must be of shape {learner._sums.moment.shape}, but got {sums.moment.shape}.")
        learner._sums = sums + _zero(sums)
        if losses is not None:
            learner._losses = np.array(losses, dtype=np.float64)
        learner._solve()
        return learner

    def freeze(self, arms: tuple[str, ...], schema: str) -> FrozenPolicy:
        """All that was learned, as arrays: what a snapshot holds. Solves anew, so that the thawed one is bit-equal."""
        self.flush()
        self._solve()
        scaler, settings = self.lift.scaler, np.array([getattr(self.options, f.name) for f in fields(Options)])
        arrays = {"mean": scaler.mean, "scale": scaler.scale, "options": settings, "losses": self._losses.copy()}
        sums = {"gram": self._sums.gram.copy(), "moment": self._sums.moment.copy(), "count": self._sums.count.copy()}
        return FrozenPolicy(KIND, arms, schema, arrays | sums)

    @classmethod
    def thaw(cls, frozen: FrozenPolicy) -> OnlineLearner:
        """The learner that `freeze` froze. Raises KeyError or ValueError for arrays that are not whole."""
        a = frozen.arrays
        named = zip(fields(Options), a["options"].tolist(), strict=True)
        options = Options(**{f.name: int(value) if f.type == "int" else value for f, value in named})
        return cls.from_sums(
            Gram(a["gram"], a["moment"], a["count"]), Scaler(a["mean"], a["scale"]), options, a["losses"]
        )

    def _solve(self) -> None:
        """Everything but the sums, from the sums."""
        sums = self._sums
        for arm in range(self.k):
            for head in self._heads:
                head.refresh(arm, sums.gram[arm], sums.moment[arm])
            self._due[arm] = max(2.0 * sums.count[arm], _SOON)
        self._width = self._solved_width()
        self._next_block()
        self._fast.load(self)

    def _solved_width(self) -> Matrix:
        sums, scale = self._sums, np.ones(len(self._wide))
        self._width_due = max(2.0 * float(sums.count.sum()), _SOON)
        scale[self.d + 1 :] = self._wave_scale
        total = sums.gram.sum(axis=0)[np.ix_(self._wide, self._wide)] * (scale[:, None] * scale)
        return np.linalg.inv(total + np.eye(len(scale)))

    def _next_block(self) -> None:
        later = float(self._sums.count.sum()) - self.options.at_once
        self._limit = min(max(1, int(self.options.block * later)), _MOST)

    def _fold(self, phi: Matrix, actions: Actions, targets: Vector) -> None:
        self._weigh_heads(phi, actions, targets)
        sums = self._sums
        for arm in np.unique(actions).tolist():
            mine = actions == arm
            rows, rewards = phi[mine], targets[mine]
            sums.gram[arm] += rows.T @ rows
            sums.moment[arm] += rewards @ rows
            sums.count[arm] += len(rows)
            renew = sums.count[arm] >= self._due[arm]
            self._due[arm] = max(2.0 * sums.count[arm], _SOON) if renew else self._due[arm]
            for head in self._heads:
                if renew or 2 * len(rows) > len(head.columns):  # then solving anew is also the cheaper way
                    head.refresh(arm, sums.gram[arm], sums.moment[arm])
                else:
                    head.add(arm, np.ascontiguousarray(rows[:, head.columns]), rewards)
        self._fold_width(phi)

    def _weigh_heads(self, phi: Matrix, actions: Actions, targets: Vector) -> None:
        """Progressive validation: each head foretells the block before it learns from it."""
        kept = (1.0 - 1.0 / self.options.memory) ** len(phi)
        for i, head in enumerate(self._heads):
            foretold = np.einsum("nd,nd->n", phi[:, head.columns], head.weights[actions])
            self._losses[i] = kept * self._losses[i] + float(np.square(targets - foretold).sum())

    def _fold_width(self, phi: Matrix) -> None:
        """The one covariance of all arms, recursive between exact refreshes like the heads."""
        if self._sums.count.sum() >= self._width_due or 2 * len(phi) > len(self._wide):
            self._width = self._solved_width()
            return
        rows = phi[:, self._wide]
        rows[:, self.d + 1 :] *= self._wave_scale
        half = rows @ self._width
        inner = np.eye(len(rows)) + half @ rows.T
        self._width -= half.T @ np.linalg.solve(inner, half)


def _mix(losses: Vector, temper: float) -> Vector:
    odds = np.exp((losses.min() - losses) / temper)
    return np.asarray(odds / odds.sum())


def _zero(like: Gram) -> Gram:
    return like - like


class _Fast:
    """The decision path: what `flush` left, as float32 in the order that products want, with buffers of its own.

    The features here are [x - mean, 1, cosines, width], bare: the weights carry all scales, and each arm's reach.
    """

    def __init__(self, learner: OnlineLearner) -> None:
        d, k, lift, wide = learner.d, learner.k, learner.lift, len(learner._wide)
        m, scale = len(lift.phases), lift.scaler.scale
        self.d, self.shape, self.bent = d, (d,), m > 0
        self.mean = lift.scaler.mean.astype(np.float32)
        self.low, self.high = (-CLIP * scale).astype(np.float32), (CLIP * scale).astype(np.float32)
        self.turn = np.vstack([lift.frequencies / scale[:, None], lift.phases]).astype(np.float32)
        self.phi = np.ones(d + m + 2, np.float32)
        self.z, self.straight, self.cosines = self.phi[:d], self.phi[: d + 1], self.phi[d + 1 : -1]
        self.seen, self.half = self.phi[:wide], np.empty(wide, np.float32)
        self.bounds = np.empty(k, np.float32)
        amplitude = lift.waves * sqrt(2.0 / m) if m else 0.0
        self.scales = np.concatenate([lift.linear / scale, [1.0], np.full(m, amplitude)])
        widths = self.scales[:wide].copy()
        widths[d + 1 :] *= learner._wave_scale
        self.wide_scales = widths[:, None] * widths
        self.rows = with_floor(np.eye(k), np.ones((k, k), np.bool_), learner.options.floor)
        self.rows.flags.writeable = False
        self.cumulative = list(np.cumsum(self.rows, axis=1))
        self.total = [float(row[-1]) for row in self.cumulative]
        self.propensities = self.rows.tolist()
        self.load(learner)

    def load(self, learner: OnlineLearner) -> None:
        """Take over what the learner knows."""
        d, width = self.d, len(self.scales)
        weights = np.zeros((learner.k, width))
        for share, head in zip(learner.mix, learner._heads, strict=True):
            weights[:, head.columns] += share * head.weights
        order = np.concatenate([np.arange(d), [width - 1], np.arange(d, width - 1)])
        n = learner._sums.count
        reach = learner.options.optimism * np.sqrt((n.sum() + learner.k) / (n + 1.0))
        self.weights = np.column_stack([weights[:, order] * self.scales, reach]).astype(np.float32)
        self.width = (learner._width * self.wide_scales).astype(np.float32)

    def best(self, context: Context) -> int:
        """The arm of highest bound; the bounds stay in their buffer. Ten products and no allocation."""
        if context.shape != self.shape:
            raise ShapeError(f"a context must have shape {self.shape}, but got {context.shape}.")
        z, half, seen, cosines = self.z, self.half, self.seen, self.cosines
        _subtract(context, self.mean, z)
        _minimum(z, self.high, out=z)
        _maximum(z, self.low, out=z)
        if self.bent:
            self.straight.dot(self.turn, cosines)
            _cos(cosines, cosines)
        self.width.dot(seen, half)
        square = float(half.dot(seen))
        if isnan(square):  # one NaN anywhere comes out here
            raise ContextError(f"a context must have no NaN, but got {context.tolist()}.")
        self.phi[-1] = sqrt(abs(square))
        self.weights.dot(self.phi, self.bounds)
        return int(self.bounds.argmax())


_subtract, _minimum, _maximum, _cos = np.subtract, np.minimum, np.maximum, np.cos
