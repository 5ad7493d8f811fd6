"""The report of a night: data for the warehouse, evidence for the snapshot, Markdown for a person."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from bandits.training.influence import NOTHING, LeftOut
from bandits.types import LoggedFeedback, Scope


@dataclass(frozen=True, slots=True)
class NightReport:
    """The night as data: what the warehouse keeps, a snapshot signs as evidence, and a person reads."""

    run_id: str
    scope: Scope
    time: float  # UTC, seconds since the epoch
    position: int  # of the last row of the record that was read
    rounds: int
    missing: int  # decisions whose reward is not known
    verdict: Literal["published", "kept", "failed"]  # failed: chosen, but not published; what served serves on
    version: str | None  # of the snapshot, when published
    policy: str  # candidate, mix, fixed; or the version kept
    reason: str
    detail: Mapping[str, Any]  # tuning, choice of learner, evaluation, guard, gate: plain JSON
    table: str = ""  # evaluation of all policies by all estimators, Markdown
    parent: str | None = None  # the version before, when one was published
    card: str = ""  # of the promotion, Markdown
    notes: tuple[str, ...] = ()  # what else a person should know
    left_out: LeftOut = NOTHING  # of the rounds: those of users beyond their share, from which nothing was learned

    def render(self) -> str:
        """The night as Markdown for a person: the verdict first, then the evidence."""
        outcome = f"**Published {self.version}** ({self.policy})" if self.version else "**Kept** what serves"
        outcome = "**FAILED**, what served serves on" if self.verdict == "failed" else outcome
        log = f"{self.rounds} rounds with a reward, {self.missing} without, up to position {self.position}"
        head = [f"# Night of {self.scope}", "", f"{outcome}. {self.reason}", "", f"- Log: {log}."]
        if self.left_out.rounds:
            users = f"{self.left_out.users} user{'s' * (self.left_out.users > 1)}"
            head += [f"- Left out: {self.left_out.rounds} rounds of {users} beyond the share that one may teach."]
        head += [f"- {note}" for note in self.notes]
        if not self.detail:
            return "\n".join([*head, f"- Run {self.run_id}."])
        gated = self.detail["gate"]
        costs = ", ".join(f"{name} {usd:.2e}" for name, usd in self.detail["costs"].items())
        body = [
            *_search(self.detail["tuning"]),
            *_choice(self.detail["choice"]),
            f"- Guard: {self.detail['guard']['reason']}",
            f"- Gate: {gated['outcome']}: {gated['reason']}",
            f"- Expected USD per request: {costs}; budget {self.detail['budget']:.2e}.",
            f"- Run {self.run_id}.",
        ]
        return "\n".join([*head, *body, "", self.table])


def _search(tuned: Mapping[str, Any]) -> list[str]:
    lines = [f"- Search: {tuned['trials']} trials. {tuned['reason']}"]
    if tuned["convergence"]:
        path = " ".join(f"{value:.4f}" for value in tuned["convergence"])
        lines.append(f"  Best so far after each feasible trial: {path}; then {tuned['stopped']}.")
        lines.append(f"  Overfit gap {tuned['overfit_gap']:+.4f}; {len(tuned['front'])} trials on the front.")
    return lines


def _choice(choice: Mapping[str, Any]) -> list[str]:
    worth = ", ".join(f"{learner} {value:.4f}" for learner, value in choice["values"].items())
    out = "".join(f" {learner} was left out: {why}." for learner, why in choice["left_out"].items())
    return [f"- Learner: {choice['learner']} ({worth}): {choice['reason']}.{out}"]


def kept(
    run_id: str, scope: Scope, feedback: LoggedFeedback, now: float, reason: str, left_out: LeftOut = NOTHING
) -> NightReport:
    """The report of a night that keeps what serves, without evidence: it had nothing to learn from.

    feedback: the whole log, also what was left out of it.
    """
    return NightReport(
        run_id=run_id,
        scope=scope,
        time=now,
        position=feedback.position,
        rounds=len(feedback),
        missing=feedback.missing,
        verdict="kept",
        version=None,
        policy="",
        reason=reason,
        detail={},
        left_out=left_out,
    )
