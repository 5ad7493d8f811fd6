"""Which answers a judge should see: where a verdict teaches most, at a stated share of the traffic and of money a day.

    chance(x) = min(1, share * s(x) / mean s),    s(x) = sum_a p(a|x) sqrt(phi' A^-1 phi * (N + 1) / (n_a + 1))

phi = [x, 1], A = I + sum phi phi' over the N answers judged so far, n_a: those of arm a, p: what was drawn from. The
root is the width of a ridge estimate of arm a at x, with one covariance for all arms (Li et al. 2010, as features are
shared here): uncertainty, weighted by traffic.

The chance looks at the context and at the row of probabilities, never at the arm that was drawn nor at what it
answered. So of the judged answers of one context the arms are distributed as logged: logged propensities hold among
them as they are. Contexts are over-represented by chance(x), which is logged (`key_of`): dividing by it undoes that.
Money that has run out for the day stops all judging alike.

All of it is a fold over the rows of the record, so that processes that share a record share one purse.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from bandits.errors import UnknownDecisionError
from bandits.folds.following import tail
from bandits.folds.state import day_of
from bandits.record.port import Record, Row
from bandits.types import JUDGE, Decision, Matrix, Outcome, Scope, Vector

SOURCE = "judge"  # of verdicts, and of what they cost
_FAR = 20_000  # rows of the record that a process reads back at least when it begins
_MEMORY = 200.0  # decisions over which the mean of s is taken


def key_of(chance: float) -> str:
    """Key of a verdict: names the event, and keeps the chance that it was asked for with."""
    return f"judge-{chance!r}"


def chance_of(verdict: Outcome) -> float:
    """The chance that a verdict was asked for with, (0, 1]; divide by it what is averaged over judged answers.

    Raises ValueError for an outcome that is no verdict.
    """
    kind, _, chance = verdict.key.partition("-")
    if kind != "judge":
        raise ValueError(f"a verdict's key must be judge-CHANCE, but got {verdict.key!r}.")
    return float(chance)


@dataclass(slots=True)
class Teaching:
    """What has been judged of one scope, and what that cost today. Not thread-safe.

    position: of the last row that was folded.   day: UTC.   calls, usd: asked for and spent on that day.
    """

    scope: Scope
    arms: tuple[str, ...]
    share: float
    position: int = 0
    day: str = ""
    calls: int = 0
    usd: float = 0.0
    counts: Vector = field(init=False)  # (K,) judged answers
    inverse: Matrix | None = None  # (d + 1, d + 1), of A; None before the first
    mean: float = 0.0  # of s
    heard: float = 0.0  # decisions behind the mean, up to _MEMORY

    def __post_init__(self) -> None:
        self.counts = np.zeros(len(self.arms))

    def follow(self, record: Record, now: float) -> None:
        """Take in what the record has by now (UTC, seconds since the epoch). Raises RecordError."""
        self._turn(day_of(now))
        if self.position == 0:
            self.position = _yesterday(record, self.day)
        self.fold(tail(record, self.position), record)

    def fold(self, rows: Iterable[Row], record: Record) -> None:
        """Take in rows in order of position.   record: where their decisions are found."""
        for row in rows:
            self.position = row.position
            entry = row.entry
            if isinstance(entry, Decision) or entry.scope != self.scope or entry.source != SOURCE:
                continue
            if entry.arm == JUDGE:
                self._turn(day_of(entry.time))
                if day_of(entry.time) == self.day:
                    self.calls, self.usd = self.calls + 1, self.usd + (entry.cost_usd or 0.0)
            elif entry.quality is not None:
                try:
                    self.learn(record.decision(entry.decision_id, self.scope.tenant))
                except UnknownDecisionError:  # erased since
                    continue

    def learn(self, decision: Decision) -> None:
        """Count an answer that was judged (Sherman and Morrison, 1950)."""
        if decision.arm not in self.arms:
            return
        self.counts[self.arms.index(decision.arm)] += 1.0
        phi = _phi(decision)
        inverse = self._inverse(len(phi))
        turned = inverse @ phi
        self.inverse = inverse - np.outer(turned, turned) / (1.0 + float(phi @ turned))

    def uncertainty(self, decision: Decision) -> float:
        """s of the docstring: how much a verdict on this decision would teach."""
        phi = _phi(decision)
        width = max(float(phi @ self._inverse(len(phi)) @ phi), 0.0)
        judged = dict(zip(self.arms, self.counts.tolist(), strict=True))
        n = float(self.counts.sum())
        each = np.array([np.sqrt(width * (n + 1.0) / (judged.get(arm, 0.0) + 1.0)) for arm in decision.arms])
        return float(decision.probabilities @ each)

    def chance(self, decision: Decision) -> float:
        """The chance, [0, 1], with which to judge what a decision was answered. Counts the decision in the mean."""
        s = self.uncertainty(decision)
        self.heard = min(self.heard + 1.0, _MEMORY)
        self.mean += (s - self.mean) / self.heard
        return min(1.0, self.share * s / self.mean) if self.mean > 0.0 else self.share

    def _inverse(self, d: int) -> Matrix:
        if self.inverse is None or len(self.inverse) != d:  # features of another schema begin anew
            self.inverse = np.eye(d)
        return self.inverse

    def _turn(self, day: str) -> None:
        if day > self.day:
            self.day, self.calls, self.usd = day, 0, 0.0


def _phi(decision: Decision) -> Vector:
    return np.append(decision.context.astype(np.float64), 1.0)


def _yesterday(record: Record, today: str) -> int:
    """A position behind which every row of today stands, and _FAR rows at least where there are as many."""
    head, span = record.head(), _FAR
    while (after := head - span) > 0:
        first = next(tail(record, after), None)
        if first is not None and day_of(first.entry.time) < today:
            return after
        span *= 2
    return 0
