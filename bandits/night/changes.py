"""What changed in the configuration since it was last looked at, sealed in the audit; and what follows for an arm.

An arm whose model, provider or price is another one is a new arm under an old name: what was logged of the old one is
no evidence about it. So the log is read as if the arm had not been allowed before the change, which is exact: given
that it was not drawn, the others were drawn with their probabilities over what is left. The arm then has few draws,
which puts it on trial (policy.served): its share of the floor and no more, until a night knows it again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from bandits.config import Config
from bandits.home import Home
from bandits.learners.frozen import thaw
from bandits.policy import Policy
from bandits.record.audit import Action, Audit, AuditRow
from bandits.snapshots.keys import SigningKey
from bandits.types import LoggedFeedback

_SAID = ("provider", "model", "usd_per_request")  # what makes an arm the one it is


def note(home: Home, config: Config, key: SigningKey, now: float) -> list[AuditRow]:
    """Seal in the audit what is another than it was: the configuration, the key that signs, arms. All of its rows."""
    settings = hashlib.sha256(config.model_dump_json().encode()).hexdigest()
    with Audit(home.audit_url) as audit:
        rows = audit.rows()
        known = {row.action: row.content for row in rows if row.tenant == "" and row.content is not None}
        before = (known.get("arms") or {}).get("evidence", {})
        found: list[tuple[Action, str, dict[str, Any]]] = [
            ("configuration", "the configuration is another than before", {"sha256": settings}),
            ("key", "another key signs snapshots", {"id": key.id}),
            ("arms", _told(before, arms_of(config)), arms_of(config)),
        ]
        for action, why, evidence in found:
            if (known.get(action) or {}).get("evidence") != evidence:
                audit.append(action, tenant="", who="night", why=why, evidence=evidence, time=now)
        return audit.rows()


def arms_of(config: Config) -> dict[str, dict[str, dict[str, Any]]]:
    """Every arm as configured, by domain and name: provider, model and price."""
    return {
        name: {arm.name: {what: getattr(arm, what) for what in _SAID} for arm in domain.arms}
        for name, domain in config.domains.items()
    }


def changed(rows: Iterable[AuditRow], domain: str) -> dict[str, float]:
    """Arms of a domain that became other ones, with the time at which that was last noticed (UTC seconds)."""
    found: dict[str, float] = {}
    before: Mapping[str, Any] = {}
    for row in rows:
        if row.action != "arms" or row.content is None:
            continue
        now = row.content["evidence"].get(domain, {})
        found |= {arm: row.time for arm, said in now.items() if arm in before and before[arm] != said}
        before = {**before, **now}
    return found


def since(feedback: LoggedFeedback, times: Mapping[str, float]) -> LoggedFeedback:
    """The log without what it says of arms before they changed: as if they had not been allowed then.

    times: of each change, UTC seconds; arms that the log does not know are ignored.
    """
    stale = np.zeros(feedback.probabilities.shape, np.bool_)
    for arm, time in times.items():
        if arm in feedback.arms:
            stale[:, feedback.arms.index(arm)] = feedback.times <= time
    if not stale.any():
        return feedback
    kept = ~stale[np.arange(len(feedback)), feedback.actions]
    log = feedback.where(kept)
    left = np.where(stale[kept], 0.0, log.probabilities)
    touched = stale[kept].any(axis=1)
    left[touched] /= left[touched].sum(axis=1, keepdims=True)
    return replace(log, probabilities=left, propensities=left[np.arange(len(log)), log.actions])


def reopened(policy: Policy, arms: Iterable[str]) -> Policy | None:
    """The policy with these arms on trial again; None where it does not count on any of them, or on nothing else."""
    frozen = policy.freeze()
    stored = frozen.arrays.get("supported")
    if stored is None:
        return None
    supported = stored.copy()
    supported[[frozen.arms.index(arm) for arm in arms if arm in frozen.arms]] = 0
    if (supported == stored).all() or not supported.any():
        return None
    return thaw(replace(frozen, arrays={**frozen.arrays, "supported": supported}))


def explain(times: Mapping[str, float], domain: str, rows: Iterable[AuditRow]) -> str:
    """The latest changes as a sentence for a report; empty where there was none."""
    told = [row.content["why"] for row in rows if row.action == "arms" and row.content and times]
    return f"Arms of {domain} that are others than before: {', '.join(sorted(times))} ({told[-1]})." if told else ""


def _told(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What is another than it was, in words."""
    said = []
    for domain, arms in now.items():
        for arm, ours in arms.items():
            theirs = before.get(domain, {}).get(arm)
            for what in _SAID if theirs else ():
                if theirs[what] != ours[what]:
                    name = "price" if what == "usd_per_request" else what
                    said.append(f"{name} of {domain}/{arm} changed from {theirs[what]} to {ours[what]}")
    return "; ".join(said) or "the arms are others than before"
