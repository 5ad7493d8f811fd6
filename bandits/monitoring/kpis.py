"""What a day, a week or a month of a scope was like: each figure with its interval and its n, from the log alone.

Where nothing was measured the figure is None and the text says "no data": silence is never a pass.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from bandits.config import DomainConfig
from bandits.errors import ShapeError
from bandits.types import Scope
from bandits.warehouse.loading import PATIENCE_S, Run, opened, read_feedback

Period = Literal["daily", "weekly", "monthly"]
REPORTED = "reported"  # verdict of the run in the warehouse; a night's is another word
Z = 1.96  # of a 95 % interval
# A decision's costs add up, its latency is the first, its vote the last; one that failed is known by its source.
_DECIDED = """
SELECT d.time, any_value(d.arm), sum(o.cost_usd), arg_min(o.latency_s, o.position), arg_max(o.vote, o.position),
    coalesce(bool_or(o.source = 'failed'), false), count(o.position)
FROM decisions d LEFT JOIN outcomes o ON o.decision = d.position
WHERE d.tenant = ? AND d.workspace = ? AND d.domain = ? AND d.time >= ? AND d.time < ?
GROUP BY d.position, d.time
"""


@dataclass(frozen=True, slots=True)
class Figure:
    """One number.   n: of what it was measured on.   low, high: 95 %."""

    name: str
    unit: str
    value: float | None
    low: float | None
    high: float | None
    n: int

    def render(self) -> str:
        """A row of a table."""
        if self.value is None:
            return f"| {self.name} | no data | | {self.n} |"
        between = "" if self.low is None or self.high is None else f"{self.low:.4g} to {self.high:.4g}"
        return f"| {self.name} | {self.value:.4g} {self.unit} | {between} | {self.n} |"


@dataclass(frozen=True, slots=True)
class Kpis:
    """A scope in a span of time, UTC seconds: the first included, the last not."""

    scope: Scope
    period: Period
    start: float
    end: float
    decisions: int
    figures: tuple[Figure, ...]

    def render(self) -> str:
        """As Markdown."""
        first, last = (datetime.fromtimestamp(at, UTC) for at in (self.start, self.end - 1.0))
        span = f"{first:%Y-%m-%d}" if first.date() == last.date() else f"{first:%Y-%m-%d} to {last:%Y-%m-%d}"
        head = [
            f"# {self.period.capitalize()} report of {self.scope}",
            "",
            f"{span} UTC, {self.decisions} decisions.",
            "",
        ]
        if not self.decisions:
            head += ["**No data**: nothing was decided. That is not a pass: ask why.", ""]
        table = ["| figure | value | 95 % interval | n |", "| --- | --- | --- | --- |"]
        return "\n".join([*head, *table, *[figure.render() for figure in self.figures]])

    def run(self, id_: str, now: float) -> Run:
        """As the warehouse stores it."""
        report: dict[str, Any] = asdict(self) | {"scope": str(self.scope), "markdown": self.render()}
        return Run(id=id_, scope=str(self.scope), time=now, verdict=REPORTED, report=report)


def span_of(period: Period, now: float) -> tuple[float, float]:
    """The last whole day, week (from Monday) or month before `now`, UTC seconds: the first included, the last not."""
    if period not in get_args(Period):
        raise ShapeError(f"a period must be one of {', '.join(get_args(Period))}, but got {period!r}.")
    today = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if period == "daily":
        start, end = today - timedelta(days=1), today
    elif period == "weekly":
        end = today - timedelta(days=today.weekday())
        start = end - timedelta(days=7)
    else:
        end = today.replace(day=1)
        start = (end - timedelta(days=1)).replace(day=1)
    return start.timestamp(), end.timestamp()


def kpis(path: Path, scope: Scope, domain: DomainConfig, period: Period, now: float) -> Kpis:
    """The figures of the last whole period before `now`, UTC seconds, from the warehouse. Raises WarehouseError."""
    start, end = span_of(period, now)
    with opened(path, patience_s=PATIENCE_S) as connection:
        values = [scope.tenant, scope.workspace, scope.domain, start, end]
        rows = connection.execute(_DECIDED, values).fetchall()
    rewards = read_feedback(path, scope, domain, now, start, end).rewards
    cost, latency, vote = (np.array([row[i] for row in rows if row[i] is not None], np.float64) for i in (2, 3, 4))
    answered = np.array([row[5] for row in rows if row[6]], np.float64)
    voted = _share("of decisions have a vote", np.array([row[4] is not None for row in rows], np.float64))
    figures = (
        _mean("mean reward", "", rewards),
        _share("of decisions have a reward", np.arange(len(rows)) < len(rewards)),
        _mean("cost per request", "USD", cost),
        *_quantiles(latency),
        _share("failed, of those with an outcome", answered),
        _share("satisfied, of the votes", vote > 0.0),
        voted,
    )
    return Kpis(scope, period, start, end, len(rows), figures)


def _mean(name: str, unit: str, values: NDArray[np.float64]) -> Figure:
    n = len(values)
    if not n:
        return Figure(name, unit, None, None, None, 0)
    mean = float(values.mean())
    half = Z * float(values.std(ddof=1)) / np.sqrt(n) if n > 1 else None
    return Figure(name, unit, mean, None if half is None else mean - half, None if half is None else mean + half, n)


def _share(name: str, hits: NDArray[Any]) -> Figure:
    """Wilson's interval (1927), which is right for few and for shares near 0 and 1."""
    n = len(hits)
    if not n:
        return Figure(name, "%", None, None, None, 0)
    p = float(np.mean(hits))
    middle = (p + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z * float(np.sqrt(p * (1 - p) / n + Z * Z / (4 * n * n))) / (1 + Z * Z / n)
    return Figure(name, "%", 100 * p, 100 * max(middle - half, 0.0), 100 * min(middle + half, 1.0), n)


def _quantiles(seconds: NDArray[np.float64]) -> list[Figure]:
    """Latency, with the interval of order statistics (binomial, by its normal approximation)."""
    found, n = [], len(seconds)
    ordered = np.sort(seconds)
    for q in (0.5, 0.99):
        name = f"latency p{100 * q:.0f}"
        if not n:
            found.append(Figure(name, "s", None, None, None, 0))
            continue
        spread = Z * np.sqrt(n * q * (1 - q))
        low, high = (int(np.clip(round(n * q + side * spread), 0, n - 1)) for side in (-1, 1))
        found.append(Figure(name, "s", float(np.quantile(ordered, q)), float(ordered[low]), float(ordered[high]), n))
    return found
