"""The learned policy that serves: what a candidate has to beat."""

from __future__ import annotations

from dataclasses import dataclass

from bandits.config import DomainConfig
from bandits.errors import ContextError, SnapshotError
from bandits.home import Home
from bandits.learners.frozen import SIMPLE_KINDS, thaw
from bandits.policy import Policy
from bandits.record.audit import Audit
from bandits.rollout.giving import standing
from bandits.served import Serving, fit
from bandits.snapshots.keys import trusted_keys
from bandits.snapshots.loading import Snapshot, load
from bandits.snapshots.reader import SnapshotReader
from bandits.types import Scope

_DAY = 86_400.0  # seconds


@dataclass(frozen=True, slots=True, eq=False)
class Incumbent:
    """The learned policy that serves: what a candidate has to beat."""

    policy: Policy
    version: str
    created: float  # UTC seconds; only later rounds judge it, since it learned from the earlier ones


def serving_learned(home: Home, scope: Scope, domain: DomainConfig, now: float) -> Incumbent | None:
    """The learned policy that serves the scope as stable, if there is one and it is not a simple one.

    Over the arms that there are now, as servers fit it; None where they refuse it.
    """
    current = stable(home, scope, now)
    if current is None or current.frozen.kind in SIMPLE_KINDS:
        return None
    manifest = current.manifest
    found = Serving(thaw(current.frozen), manifest.version, manifest.position)
    try:
        return Incumbent(fit(found, scope, domain).policy, manifest.version, manifest.created)
    except ContextError:
        return None


def stable(home: Home, scope: Scope, now: float) -> Snapshot | None:
    """The snapshot that serves whoever no rollout tries another one on: of the order that holds, else the newest."""
    order, trusted = standing(home, scope), trusted_keys(home.root)
    if order is None:
        reader = SnapshotReader(home.snapshots, scope, trusted)
        reader.refresh(now)
        return reader.current
    try:
        return None if order.stable is None else load(home.snapshots, scope, order.stable, trusted=trusted, now=now)
    except SnapshotError:
        return None


def nights_since(home: Home, scope: Scope, incumbent: Incumbent | None, now: float) -> int:
    """Which night this is since the incumbent was promoted, from 1.

    Days gone by or nights in the audit, whichever is more: losing the audit must not refill the gate's error rate by
    more than a day's worth.
    """
    if incumbent is None:
        return 1
    with Audit(home.audit_url) as audit:
        nights = [row for row in audit.rows(scope.tenant) if row.action in ("promotion", "kept") and row.content]
    here = [row for row in nights if row.content and row.content["evidence"]["scope"] == str(scope)]
    runs = sum(row.time > incumbent.created for row in here)
    return 1 + max(runs, int((now - incumbent.created) // _DAY))
