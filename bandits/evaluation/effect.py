"""By how much is one arm better than another, overall and for whom? From the log, without an experiment.

    x_i = DR score of "always a"  -  DR score of "always b"      (dr.py; what both share cancels)

The mean of x_i is the average effect on the rounds in which both arms could be drawn, and its mean over a group of
contexts that of the group. Groups are by what was known *before* the arm was drawn, so they are groups of a
randomised experiment like any other.

A policy that has learned hardly ever draws what it holds for worse, and its rounds, each with a weight of hundreds,
would drown those of a day of exploring. So only the rounds of those policies are taken that together promise the least
variance, n mean(1/p_a + 1/p_b) / n²: by probabilities alone, blind to what was drawn and what came back.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from scipy.special import chdtrc

from bandits.errors import EvidenceError, UnknownArmError
from bandits.evaluation import dr
from bandits.evaluation.intervals import betting
from bandits.evaluation.moments import moments
from bandits.evaluation.weights import Verdict, check_q_hat, support
from bandits.features import NAMES
from bandits.types import LoggedFeedback, Mask, Matrix, Vector

HOUR = "hour"  # by the time of day, beside the features
_QUARTERS = ("00 to 06 UTC", "06 to 12 UTC", "12 to 18 UTC", "18 to 24 UTC")
_THIRDS = ("lowest third", "middle third", "highest third")
_WIDTH = 80
_ASSUMES = (
    "Assumes that probabilities were logged as drawn with, that a decision changes no other one's reward, and that "
    "silence does not depend on the arm."
)


@dataclass(frozen=True, slots=True)
class Effect:
    """The effect in one group of rounds. Figures are None without enough data."""

    group: str
    n: int  # rounds in which both arms could be drawn
    effective: tuple[float, float]  # rounds that speak for each of the two arms
    effect: float | None  # reward of the first arm less that of the second
    error: float | None  # standard error
    low: float | None  # with the error rate of the group, at every look
    high: float | None
    evidence: Verdict
    verdict: Literal["better", "worse", "hold", "cannot say"]  # of the first arm


@dataclass(frozen=True, slots=True)
class Comparison:
    """The effect of `first` over `second`."""

    first: str
    second: str
    by: str | None
    alpha: float  # error rate overall; the groups share another
    left_out: int  # rounds in which one of them could not be drawn
    faint: int  # rounds of policies that hardly ever draw one of the two
    missing: int  # decisions whose reward is not known
    overall: Effect
    groups: tuple[Effect, ...]
    differ: float | None  # p-value, for one look, of "the effect is the same in all groups"; None: not enough to say

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"assumes": _ASSUMES}


def compare(
    feedback: LoggedFeedback,
    policies: NDArray[np.str_],
    q_hat: Matrix,
    first: str,
    second: str,
    alpha: float,
    by: str | None = None,
) -> Comparison:
    """The effect of arm `first` over arm `second`, and in each group of `by`: a feature's name, or `hour`.

    policies: (n,) version of the policy that acted in each round.
    q_hat: (n, K) in [0, 1], fitted on other rounds than those it speaks of.
    alpha: error rate of the whole, and once more of all groups together.
    Raises UnknownArmError, EvidenceError, ShapeError.
    """
    check_q_hat(feedback, q_hat)
    one, other = (_index(feedback, arm) for arm in (first, second))
    both: Mask = (feedback.probabilities[:, one] > 0.0) & (feedback.probabilities[:, other] > 0.0)
    kept = both & _telling(feedback.probabilities[:, one], feedback.probabilities[:, other], policies, both)
    log, model = feedback.where(kept), q_hat[kept]
    cut = list(groups(log, by)) if by is not None else []
    everything = np.ones(len(log), np.bool_)
    found = [_effect(log, model, one, other, label, rows, alpha / len(cut)) for label, rows in cut]
    return Comparison(
        first=first,
        second=second,
        by=by,
        alpha=alpha,
        left_out=int((~both).sum()),
        faint=int((both & ~kept).sum()),
        missing=feedback.missing,
        overall=_effect(log, model, one, other, "all", everything, alpha),
        groups=tuple(found),
        differ=_differ(found),
    )


def groups(log: LoggedFeedback, by: str) -> Iterator[tuple[str, Mask]]:
    """Label and rounds, (n,), of each group: the two values of a feature that has two, else its thirds; or quarters
    of the day. Empty ones are left out. Raises EvidenceError for a name that is not a feature's.
    """
    if by == HOUR:
        column = log.times % 86_400.0 // 21_600.0
        cut = [(label, column == i) for i, label in enumerate(_QUARTERS)]
    else:
        names = NAMES.get(log.schema) or tuple(f"x{i}" for i in range(log.contexts.shape[1]))
        if by not in names:
            shown = ", ".join(name for name in names if not name.startswith("word_"))
            raise EvidenceError(f"groups must be by hour or a feature of {log.schema}, {shown}, but got {by!r}.")
        column = log.contexts[:, names.index(by)].astype(np.float64)
        cut = _by_value(by, column)
    yield from ((label, rows) for label, rows in cut if rows.any())


def _by_value(name: str, column: Vector) -> list[tuple[str, Mask]]:
    values = np.unique(column)
    if len(values) <= 2:
        return [(f"{name} = {value:g}", column == value) for value in values]
    low, high = np.quantile(column, (1.0 / 3.0, 2.0 / 3.0))
    third = (column > low).astype(int) + (column > high)
    return [(f"{name}, {label}", third == i) for i, label in enumerate(_THIRDS)]


def _index(feedback: LoggedFeedback, arm: str) -> int:
    if arm not in feedback.arms:
        raise UnknownArmError(f"arm must be one of {', '.join(feedback.arms)}, but got {arm!r}.")
    return feedback.arms.index(arm)


def _telling(p: Vector, other: Vector, policies: NDArray[np.str_], both: Mask) -> Mask:
    """Rounds, (n,), of the policies that together promise the least variance."""
    with np.errstate(divide="ignore"):
        load = 1.0 / p + 1.0 / other
    found = [
        (float(load[mine].mean()), mine) for name in np.unique(policies) if (mine := both & (policies == name)).any()
    ]
    found.sort(key=lambda pair: pair[0])
    kept, best, rounds, weight = np.zeros(len(p), np.bool_), math.inf, 0, 0.0
    for mean, mine in found:
        rounds, weight = rounds + int(mine.sum()), weight + mean * float(mine.sum())
        if weight / rounds**2 > best:
            break
        kept, best = kept | mine, weight / rounds**2
    return kept


def _effect(log: LoggedFeedback, q_hat: Matrix, one: int, other: int, group: str, rows: Mask, alpha: float) -> Effect:
    part = log.where(rows)
    always = [np.broadcast_to(np.eye(log.k)[arm], (len(part), log.k)) for arm in (one, other)]
    told = [support(part, probs) for probs in always]
    verdicts: list[Verdict] = [each.verdict for each in told if each.verdict != "ok"]
    effective = told[0].ess, told[1].ess
    if verdicts:
        return Effect(group, len(part), effective, None, None, None, None, verdicts[0], "cannot say")
    first, second = (dr.scores(part, probs, q_hat[rows]) for probs in always)
    scores = (first - second)[np.argsort(part.times, kind="stable")]
    bound = dr.difference_bound(part, always[0], always[1])
    low, high = betting(scores, alpha, low=-bound, high=bound, horizon=len(scores))
    m = moments(scores)
    verdict: Literal["better", "worse", "hold"] = "better" if low > 0.0 else "worse" if high < 0.0 else "hold"
    return Effect(group, len(part), effective, m.mean, m.standard_error, max(low, -1.0), min(high, 1.0), "ok", verdict)


def _differ(found: list[Effect]) -> float | None:
    """Cochran's Q: squared distances from the common effect, in standard errors, are chi-square if it is common."""
    known = [(one.effect, one.error) for one in found if one.effect is not None and one.error]
    if len(known) < 2:
        return None
    effects, errors = (np.array(column, np.float64) for column in zip(*known, strict=True))
    weights = errors**-2.0
    common = float(effects @ weights / weights.sum())
    return float(chdtrc(len(known) - 1, float(weights @ (effects - common) ** 2)))


def render(found: Comparison) -> str:
    """Plain text of 80 columns: the conclusion, a table, what it rests on."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1), collapse_padding=True)
    for name in ("group", "rounds", "speak for each", "effect", "low", "high", "verdict"):
        table.add_column(name, justify="left" if name in ("group", "verdict") else "right")
    for one in (found.overall, *found.groups):
        figures = [_signed(x) for x in (one.effect, one.low, one.high)]
        said = one.evidence if one.verdict == "cannot say" else one.verdict
        table.add_row(one.group, f"{one.n:,}", " / ".join(f"{ess:,.0f}" for ess in one.effective), *figures, said)
    out = io.StringIO()
    console = Console(file=out, width=_WIDTH, color_system=None, highlight=False, markup=False, emoji=False)
    console.print(_conclusion(found))
    console.print(table)
    if found.differ is not None:
        console.print(
            f"Were the effect the same in all groups, they would differ so with probability {found.differ:.3g}."
        )
    console.print(
        f"Left out are {found.left_out:,} rounds in which one of the two could not be drawn, and {found.faint:,} of "
        f"policies that hardly ever draw one; {found.missing:,} decisions have no reward. Intervals hold at every "
        f"look, those of the groups all together. {_ASSUMES}"
    )
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def _signed(value: float | None) -> str:
    return "" if value is None or not math.isfinite(value) else f"{value:+.4f}"


def _conclusion(found: Comparison) -> str:
    one = found.overall
    if one.verdict == "cannot say":
        return f"Cannot say whether {found.first} is better than {found.second}: {one.evidence}."
    between = (
        f"its reward differs by {_signed(one.low)} to {_signed(one.high)} ({1.0 - found.alpha:.0%}, at every look)"
    )
    if one.verdict == "hold":
        return f"The log cannot tell {found.first} from {found.second}: {between}."
    return f"{found.first} is {one.verdict} than {found.second}: {between}."
