"""The candidate on trial in the shadow of what serves: what it would have drawn on the contexts logged since.

Nothing is invented: its value is a doubly robust estimate from the rewards that were really logged, by the trial's own
terms (night/judging.py), and what served is judged by the same rounds.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from bandits.config import DomainConfig, NightConfig
from bandits.errors import EvidenceError
from bandits.evaluation import dr
from bandits.evaluation.moments import moments
from bandits.home import Home
from bandits.night import judging
from bandits.night.gates import GateVerdict
from bandits.night.incumbent import serving_learned
from bandits.night.night import SETTLED_S
from bandits.types import LoggedFeedback, Scope

Z = 1.96  # of a 95 % interval


@dataclass(frozen=True, slots=True)
class Shadow:
    """What is known of a trial. Values in reward units; None: no data."""

    scope: Scope
    trial: str | None  # version among the trials; None: none stands
    against: str | None  # the snapshot that serves; None: no learned one does
    rounds: int  # settled, since the trial was fixed
    agreement: float | None  # mean probability that both draw the same arm
    candidate: float | None
    serving: float | None
    advantage: float | None
    low: float | None  # 95 % at this look alone; the gate's verdict holds at every look
    high: float | None
    gate: GateVerdict | None
    why: str  # a sentence

    def as_dict(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self) | {"scope": str(self.scope)}

    def render(self) -> str:
        """As Markdown."""
        lines = [f"# Shadow of {self.scope}", "", self.why, ""]
        if self.advantage is None:
            return "\n".join([*lines, "No data: nothing can be said of it."])
        lines += [
            "| | value |",
            "| --- | --- |",
            f"| settled rounds since | {self.rounds} |",
            f"| both draw the same arm | {100 * (self.agreement or 0.0):.1f} % |",
            f"| candidate | {self.candidate:.4f} |",
            f"| what served | {self.serving:.4f} |",
            f"| advantage | {self.advantage:+.4f} ({self.low:+.4f} to {self.high:+.4f}) |",
        ]
        gate = [] if self.gate is None else ["", f"Gate: {self.gate.outcome}: {self.gate.reason}"]
        return "\n".join([*lines, *gate])


def shadow(
    home: Home, scope: Scope, domain: DomainConfig, settings: NightConfig, feedback: LoggedFeedback, now: float
) -> Shadow:
    """What the log says of the candidate on trial, if one stands.   feedback: of the scope.   now: UTC seconds."""
    incumbent = serving_learned(home, scope, domain, now)
    if incumbent is None:
        return _nothing(scope, None, None, "No learned policy serves, so no candidate is on trial against it.")
    trial = judging.standing(home, scope, domain, incumbent.version, now)
    if trial is None:
        return _nothing(scope, None, incumbent.version, f"No candidate is on trial against {incumbent.version}.")
    settled = feedback.times <= now - min(domain.reward.window_s, SETTLED_S)
    rounds = feedback.where(settled & (feedback.times > trial.fixed))
    why = f"Trial {trial.version} (the {trial.number}. since the last promotion) against {incumbent.version}."
    if len(rounds) < 2:
        return _nothing(scope, trial.version, incumbent.version, why)
    candidate, serving = (judging.would_draw(policy, rounds) for policy in (trial.policy, incumbent.policy))
    q_hat = judging.means_before(rounds)
    scores = [dr.scores(rounds, probs, q_hat) for probs in (candidate, serving)]
    lead = moments(scores[0] - scores[1])
    half = Z * lead.standard_error
    try:
        gate = judging.judge(rounds, trial, incumbent.policy, settings.alpha)
    except EvidenceError as error:
        gate, why = None, f"{why} It cannot be judged any more: {error}"
    return Shadow(
        scope,
        trial.version,
        incumbent.version,
        len(rounds),
        float((candidate * serving).sum(axis=1).mean()),
        float(np.mean(scores[0])),
        float(np.mean(scores[1])),
        lead.mean,
        lead.mean - half,
        lead.mean + half,
        gate,
        why,
    )


def _nothing(scope: Scope, trial: str | None, against: str | None, why: str) -> Shadow:
    return Shadow(scope, trial, against, 0, None, None, None, None, None, None, None, why)
