"""The evaluation of several policies on one log, as tidy rows. No value stands without its interval and its support."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from bandits.errors import NotEnoughDataError
from bandits.evaluation import dm, dr, ips, sndr, snips, switch
from bandits.evaluation.intervals import normal
from bandits.evaluation.moments import Moments, moments
from bandits.evaluation.weights import (
    Support,
    Verdict,
    check_distributions,
    check_model,
    check_q_hat,
    importance,
    support,
)
from bandits.types import LoggedFeedback, Matrix, Vector

Estimator = Literal["dr", "sndr", "switch", "snips", "dm", "ips"]

_WIDTH = 100  # characters of a line of the table
_HEADER = ("policy", "by", "value ± CI", "ESS", "least", "max w", "mean w", "verdict")


@dataclass(frozen=True, slots=True)
class Row:
    """One policy by one estimator. What concerns the support is the same in all rows of a policy."""

    policy: str
    estimator: Estimator
    value: float  # reward units; NaN where the log cannot give one
    standard_error: float
    low: float
    high: float
    n: int
    ess: float
    ess_least_arm: float
    max_weight: float
    mean_weight: float
    unsupported: float  # share of the policy's mass on arms that the log could not draw
    overlap: float  # mass that policy and log have in common, in [0, 1]
    clipped: float  # share of rounds whose reward is not used, since the weight is too large: by switch alone
    verdict: Verdict


def evaluate(feedback: LoggedFeedback, policies: Mapping[str, Matrix], q_hat: Matrix, alpha: float = 0.05) -> list[Row]:
    """Value of each policy by each estimator, the most trusted first, with normal intervals at 1 - alpha.

    policies:  name -> probabilities, (n, K), rows sum to 1.     q_hat: (n, K), fitted on other folds.
    A log that cannot answer gives rows that say so in `verdict`. The interval of dm leaves out the error of q_hat.
    Raises ShapeError, PropensityError, EvidenceError.
    """
    check_q_hat(feedback, q_hat)
    return [row for name, probs in policies.items() for row in _rows(feedback, name, probs, q_hat, alpha)]


def table(rows: Sequence[Row]) -> str:
    """Render rows as a Markdown table of at most 100 columns; long names of policies are cut with an ellipsis.

    A row whose verdict is not ok shows no value: what the log cannot say has no number. ± is half the interval; ESS the
    effective sample size, in all and of the arm with least for its share; w weights.
    """
    cells = [_HEADER, *map(_cells, rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(_HEADER))]
    widths[0] = min(widths[0], _WIDTH - sum(widths[1:]) - 3 * len(widths) - 1)
    head, *body = ["| " + " | ".join(map(_fit, line, widths)) + " |" for line in cells]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    rounds = ", ".join(str(n) for n in sorted({row.n for row in rows})) or "no"
    return "\n".join([head, rule, *body, "", f"{rounds} rounds."]) + "\n"


def model_only(policies: Mapping[str, Matrix], q_hat: Matrix, alpha: float = 0.05) -> list[Row]:
    """Rows of a log whose propensities are not known: what the model says, by dm alone, under the verdict that says so.

    Nothing in such a log can show that the model is wrong. Arguments as for `evaluate`.
    Raises ShapeError, PropensityError, EvidenceError.
    """
    rows = []
    for name, probs in policies.items():
        check_distributions(probs, q_hat.shape)
        check_model(q_hat, probs.shape)
        nothing = Support(len(probs), 0.0, 0.0, 1.0, math.nan, math.nan, math.inf, math.nan, math.nan)
        rows.append(_row(name, "dm", moments(dm.values(probs, q_hat)), nothing, "no propensities", alpha))
    return rows


def _rows(feedback: LoggedFeedback, name: str, probs: Matrix, q_hat: Matrix, alpha: float) -> Iterator[Row]:
    found = support(feedback, probs)
    tau = switch.tune(feedback, probs, q_hat)
    score: dict[Estimator, Callable[[], Vector]] = {
        "dr": lambda: dr.scores(feedback, probs, q_hat),
        "sndr": lambda: sndr.scores(feedback, probs, q_hat),
        "switch": lambda: switch.scores(feedback, probs, q_hat, tau),
        "snips": lambda: snips.scores(feedback, probs),
        "dm": lambda: dm.scores(feedback, probs, q_hat),
        "ips": lambda: ips.scores(feedback, probs),
    }
    for estimator, scores in score.items():
        try:
            m = moments(scores())
        except NotEnoughDataError:  # a ratio, when no logged action is the policy's
            m = Moments()
        clipped = float((importance(feedback, probs) > tau).mean()) if estimator == "switch" and m.n else 0.0
        yield _row(name, estimator, m, found, found.verdict, alpha, clipped)


def _row(
    name: str, estimator: Estimator, m: Moments, found: Support, verdict: Verdict, alpha: float, clipped: float = 0.0
) -> Row:
    low, high = normal(m, alpha)
    return Row(
        policy=name,
        estimator=estimator,
        value=m.mean,
        standard_error=m.standard_error,
        low=low,
        high=high,
        n=found.n,
        ess=found.ess,
        ess_least_arm=found.ess_least_arm,
        max_weight=found.max_weight,
        mean_weight=found.mean_weight,
        unsupported=found.unsupported,
        overlap=found.overlap,
        clipped=clipped,
        verdict=verdict,
    )


def _cells(row: Row) -> tuple[str, ...]:
    half = row.high - row.value
    no_support = f"{row.verdict} {row.unsupported:.1%}" if row.verdict == "no support" else row.verdict
    cannot_say = row.verdict != "ok" or not math.isfinite(half)
    return (
        row.policy.replace("|", "/"),  # a bar would end the cell
        row.estimator,
        "cannot say" if cannot_say else f"{row.value:.4f} ± {half:.4f}",
        f"{row.ess:.0f}",
        f"{row.ess_least_arm:.0f}",
        f"{row.max_weight:.3g}",
        f"{row.mean_weight:.2f}",
        no_support,
    )


def _fit(text: str, width: int) -> str:
    return text.ljust(width) if len(text) <= width else text[: width - 1] + "…"
