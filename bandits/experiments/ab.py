"""A/B: by how much is variant B better than A? An interval that one may look at after every unit, and stop.

Each unit was given B with a known probability p, independently of its outcome. So

    x_i = (y_i - m_i) (B_i / p  -  (1 - B_i) / (1 - p))

has the mean effect as its mean, whatever m_i foretold of the outcome before the unit was assigned; the better it was
foretold, the less x_i varies. A betting sequence on x_i holds the effect at every look. It rests on the randomisation
alone: outcomes may drift, and follow any distribution on their range. One row a unit: a user who comes often is one.

Waudby-Smith, Ramdas 2023 (intervals.py) on the scores of Robins, Rotnitzky, Zhao 1994, "Estimation of regression
coefficients when some regressors are not always observed".
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.optimize import brentq
from scipy.special import log_ndtr, ndtr

from bandits.errors import ExperimentError, ShapeError
from bandits.evaluation.intervals import STAKE, check_alpha, lower_bound
from bandits.evaluation.moments import moments
from bandits.types import Mask, Vector


@dataclass(frozen=True, slots=True)
class Difference:
    """What is known of the effect of B over A after n units."""

    n: int
    effect: float | None  # mean of B less mean of A; None before the first unit
    low: float  # with probability 1 - alpha at every n at once
    high: float
    verdict: Literal["better", "worse", "moved", "hold"]  # of B; moved: it was once shown to be both


def difference(
    treated: Mask,
    outcomes: Vector,
    share: float,
    alpha: float,
    *,
    foretold: Vector | None = None,
    low: float = 0.0,
    high: float = 1.0,
    horizon: int | None = None,
) -> Difference:
    """The effect of B, after n units in the order in which they came.

    treated:   (n,) bool: who was given B.    outcomes: (n,) in [low, high].    share: probability of B, in (0, 1).
    foretold:  (n,) expected outcome of each unit from what was known *before* it was assigned, say its last month
               (CUPED); without it, the mean of the outcomes before.
    horizon:   planned n, at which the interval should be best; fixed in advance.
    Verdicts `better` and `worse` are wrong with probability alpha in all, over all looks.
    Raises ShapeError, ExperimentError, EvidenceError.
    """
    x, bound = scores(treated, outcomes, share, foretold=foretold, low=low, high=high), _bound(share, high - low)
    check_alpha(alpha)
    above = lower_bound(x, alpha / 2.0, low=-bound, high=bound, horizon=horizon)
    below = -lower_bound(-x, alpha / 2.0, low=-bound, high=bound, horizon=horizon)
    verdict: Literal["better", "worse", "moved", "hold"]
    if above > 0.0 or below < 0.0:
        verdict = "moved" if above > below else "better" if above > 0.0 else "worse"
    else:
        verdict = "hold"
    effect = moments(x).mean if len(x) else None
    return Difference(len(x), effect, min(above, below), max(above, below), verdict)


def scores(
    treated: Mask,
    outcomes: Vector,
    share: float,
    *,
    foretold: Vector | None = None,
    low: float = 0.0,
    high: float = 1.0,
) -> Vector:
    """x_i, (n,), in the outcomes' unit: one score a unit, whose mean is the effect. Arguments as for `difference`."""
    _check_share(share)
    if treated.shape != outcomes.shape or outcomes.ndim != 1 or treated.dtype != np.bool_:
        raise ShapeError(
            f"treated must be (n,) bool and outcomes (n,), but got {treated.dtype} {treated.shape} "
            f"and {outcomes.shape}."
        )
    _within(outcomes, low, high, "outcomes")
    if foretold is None:
        foretold = _mean_before(outcomes, (low + high) / 2.0)
    elif foretold.shape != outcomes.shape:
        raise ShapeError(f"foretold must have shape {outcomes.shape} like outcomes, but got {foretold.shape}.")
    else:
        _within(foretold, low, high, "foretold")
    x: Vector = (outcomes - foretold) * np.where(treated, 1.0 / share, -1.0 / (1.0 - share))
    return x


def false_stops(
    outcomes: Vector,
    share: float,
    alpha: float,
    runs: int,
    rng: np.random.Generator,
    *,
    low: float = 0.0,
    high: float = 1.0,
) -> float:
    """A/A: in what share of `runs` would an experiment of no effect have stopped, on these very outcomes?

    Units are assigned anew in each run and see the same outcome either way. More than alpha, beyond chance, means that
    outcomes are not of the range or rows not of one unit each.
    """
    if runs < 1:
        raise ExperimentError(f"runs must be 1 or more, but got {runs}; 1000 is usual.")
    _check_share(share)
    n = len(outcomes)
    stops = [
        difference(rng.random(n) < share, outcomes, share, alpha, low=low, high=high, horizon=n).verdict != "hold"
        for _ in range(runs)
    ]
    return sum(stops) / runs


def power(effect: float, n: int, spread: float, alpha: float, *, share: float = 0.5) -> float:
    """Probability that `difference`, with its horizon at n, shows an effect by then, in the right direction.

    effect: in the outcomes' unit.    spread: standard deviation of an outcome less what was foretold of it.

    The gambler's log capital is nearly a Brownian motion, whose chance to reach a line by a given time is known
    (first passage). Good when n is so large that no single score matters: n min(share, 1 - share) > 50 or so.
    Raises ExperimentError, EvidenceError.
    """
    check_alpha(alpha)
    _check_share(share)
    if n < 1 or not (math.isfinite(spread) and spread > 0.0) or not math.isfinite(effect):
        raise ExperimentError(
            f"n must be 1 or more, spread > 0 and effect finite, but got n={n}, spread={spread!r}, effect={effect!r}."
        )
    goal = math.log(2.0 / alpha)
    wobble = math.sqrt(STAKE * goal)  # of log capital over the whole horizon
    drift = wobble * math.sqrt(n) * abs(effect) / _score_spread(spread, share) - wobble**2 / 2.0
    at_the_end = float(ndtr((drift - goal) / wobble))
    only_before = math.exp(2.0 * drift * goal / wobble**2 + float(log_ndtr(-(drift + goal) / wobble)))
    return at_the_end + only_before


def detectable(n: int, spread: float, alpha: float, power_: float = 0.8, *, share: float = 0.5) -> float:
    """Least effect, in the outcomes' unit, that n units show with probability `power_`. Arguments as for `power`."""
    _check_power(power_, alpha)
    top = _score_spread(spread, share) / math.sqrt(n) * 20.0 * math.sqrt(math.log(2.0 / alpha))
    return float(brentq(lambda effect: power(effect, n, spread, alpha, share=share) - power_, 0.0, top))


def units_needed(effect: float, spread: float, alpha: float, power_: float = 0.8, *, share: float = 0.5) -> int:
    """Units until an effect of that size is shown with probability `power_`. Arguments as for `power`."""
    _check_power(power_, alpha)
    if not effect:
        raise ExperimentError("effect must not be 0: no number of units shows what is not there.")
    return math.ceil((detectable(1, spread, alpha, power_, share=share) / abs(effect)) ** 2)


def _score_spread(spread: float, share: float) -> float:
    """Standard deviation of x_i for a small effect."""
    return spread / math.sqrt(share * (1.0 - share))


def _bound(share: float, width: float) -> float:
    """Largest |x_i|."""
    return width / min(share, 1.0 - share)


def _mean_before(outcomes: Vector, start: float) -> Vector:
    """Mean of the outcomes before each, begun with one of `start`."""
    before = np.concatenate(([start], outcomes[:-1])) if len(outcomes) else outcomes
    mean: Vector = before.cumsum() / np.arange(1, len(before) + 1)
    return mean


def _check_share(share: float) -> None:
    if not 0.0 < share < 1.0:
        raise ExperimentError(f"share must be in (0, 1), but got {share!r}; it is the probability of variant B.")


def _check_power(power_: float, alpha: float) -> None:
    check_alpha(alpha)
    if not alpha < power_ < 1.0:
        raise ExperimentError(f"power must be in (alpha, 1), but got {power_!r}; 0.8 is usual.")


def _within(values: Vector, low: float, high: float, name: str) -> None:
    bad = np.flatnonzero(~((values >= low) & (values <= high)))
    if bad.size:
        raise ExperimentError(
            f"{name} must lie in [{low:g}, {high:g}], but got {float(values[bad[0]])!r} at rows {bad[:5].tolist()}; "
            "state the true range, and leave out units whose outcome is not known."
        )
