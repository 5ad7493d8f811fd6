"""Replay: compute a logged decision's probabilities again, from the policy, context and pressure that it names.

A policy that had learned since its snapshot learns again: the record is folded up to the position that the decision
logs (day/learning.py).

`verify` does so for a range of the record and checks what must hold of every row: positions without a gap, rows that
read back, outcomes behind their decisions. Nothing is repaired; what is wrong is named.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from nacl.signing import VerifyKey

from bandits.arms import fitted
from bandits.config import DomainConfig
from bandits.day.learning import Learning
from bandits.errors import ExperimentError, SnapshotError, UnknownDecisionError, UnreadableRowError
from bandits.experiments.serving import builtin
from bandits.learners.frozen import thaw
from bandits.policy import Policy, served
from bandits.record.port import Record, Row
from bandits.served import Serving
from bandits.snapshots.loading import load
from bandits.types import Decision, Scope, Vector

SHOWN = 20  # faults that are told one by one
_READ = 2_000  # rows read at once


class Policies:
    """The policies that acted, by scope and version, each read and verified once, and folded once over the record."""

    def __init__(self, domains: Mapping[str, DomainConfig], snapshots: Path, trusted: Mapping[str, VerifyKey]) -> None:
        self._domains, self._snapshots, self._trusted = domains, snapshots, trusted
        self._known: dict[tuple[Scope, str, tuple[str, ...]], Serving | None] = {}
        self._folds: dict[tuple[Scope, Serving], Learning] = {}

    def of(self, decision: Decision, record: Record) -> Policy | None:
        """The policy that acted, or None where it is not at hand any more."""
        return self.all([decision], record)[0]

    def all(self, decisions: Sequence[Decision], record: Record) -> list[Policy | None]:
        """The same of many decisions, each as far as it had learned from `record`."""
        found: list[Policy | None] = [None] * len(decisions)
        learned: defaultdict[tuple[Scope, Serving], list[int]] = defaultdict(list)
        for at, decision in enumerate(decisions):
            serving = self._serving(decision)
            if serving is not None and not decision.seen:
                found[at] = serving.policy
            elif serving is not None and decision.scope.domain in self._domains:
                learned[decision.scope, serving].append(at)
        for (scope, serving), places in learned.items():
            places.sort(key=lambda at: decisions[at].seen)
            learning = self._fold(scope, serving, decisions[places[0]].seen, record)
            for at in places:
                learning.follow(record, decisions[at].seen)
                found[at] = learning.learned
        return found

    def _fold(self, scope: Scope, serving: Serving, until: int, record: Record) -> Learning:
        """What was learned up to a position. It is kept: the decisions that are asked about next come later."""
        kept = self._folds.get((scope, serving))
        if kept is None or kept.position > until:
            domain = self._domains[scope.domain]
            kept = Learning(scope, domain, serving.policy, serving.version, serving.position)
            self._folds[scope, serving] = kept
        kept.follow(record, until)
        return kept.copy()

    def _serving(self, decision: Decision) -> Serving | None:
        key = decision.scope, decision.policy, decision.arms
        if key not in self._known:
            found = self._read(decision)
            self._known[key] = None if found is None else self._fitted(found, decision)
        return self._known[key]

    def _fitted(self, found: Serving, decision: Decision) -> Serving | None:
        """As it served the arms that there were then; None where it cannot have."""
        domain = self._domains.get(decision.scope.domain)
        catalogue = {} if domain is None else {arm.name: arm.usd_per_request for arm in domain.arms}
        prices = np.array([catalogue.get(arm, 0.0) for arm in decision.arms])
        if found.policy.schema != decision.schema or not set(found.policy.arms) & set(decision.arms):
            return None
        return replace(found, policy=fitted(found.policy, decision.arms, prices))

    def _read(self, decision: Decision) -> Serving | None:
        domain = self._domains.get(decision.scope.domain)
        with suppress(ExperimentError):  # of an arm that is gone
            made = builtin(decision.policy, domain) if domain is not None else None
            if domain is not None and made is not None:  # from the configuration, which may have changed since
                return Serving(made, decision.policy) if domain.arm_names == decision.arms else None
        try:
            # As of the decision: a snapshot that has expired since was good when it acted.
            found = load(self._snapshots, decision.scope, decision.policy, trusted=self._trusted, now=decision.time)
            return Serving(thaw(found.frozen), decision.policy, found.manifest.position)
        except SnapshotError:
            return None


def again(decision: Decision, policy: Policy) -> Vector:
    """The decision's probabilities, (K,), computed as they were when it was made: one row, its own pressure."""
    allowed = np.array([arm not in decision.excluded for arm in decision.arms])
    return served(policy, decision.context[None, :], allowed[None, :], decision.pressure)[0]


def replays(decision: Decision, policy: Policy) -> bool:
    """Whether the policy gives the logged probabilities again, to the last bit."""
    return again(decision, policy).tobytes() == decision.probabilities.tobytes()


@dataclass(slots=True)
class Verification:
    """What was found in a range of the record."""

    rows: int = 0
    decisions: int = 0
    replayed: int = 0  # decisions whose probabilities came out again, to the last bit
    erased: int = 0  # positions whose rows an erasure took
    unknown: Counter[str] = field(default_factory=Counter)  # why decisions were not replayed -> how many
    faults: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Nothing that was checked is wrong."""
        return not self.faults

    def render(self) -> str:
        """For a terminal of 80 columns."""
        lines = [f"{self.rows} rows, {self.decisions} decisions: {self.replayed} replay to the last bit"]
        lines += [f"  {self.erased} rows were erased"] if self.erased else []
        lines += [f"  {count} not replayed: {reason}" for reason, count in sorted(self.unknown.items())]
        lines += [f"  FAULT {fault}" for fault in self.faults[:SHOWN]]
        if len(self.faults) > SHOWN:
            lines.append(f"  … and {len(self.faults) - SHOWN} more faults")
        return "\n".join([*lines, "ok" if self.ok else f"{len(self.faults)} fault(s)"])


def verify(
    record: Record, policies: Policies, after: int = 0, until: int | None = None, scope: Scope | None = None
) -> Verification:
    """Check the rows at positions after+1 .. until (the head, if None); decisions of `scope`, or of all."""
    until = record.head() if until is None else min(until, record.head())
    start = record.epoch().start
    found = Verification()
    seen: dict[str, Scope] = {}
    position = max(after, 0)
    while position < until:
        rows, unreadable = _read(record, position, min(_READ, until - position))
        places = {row.position for row in rows}
        if unreadable is not None:
            places.add(unreadable.position)
            found.faults.append(f"position {unreadable.position}: {unreadable}")
        reached = min(position + _READ, until) if unreadable is None else unreadable.position
        erased = record.erased(position, reached)
        _expect(position, reached, places | erased, found)
        found.rows += len(rows)
        found.erased += len(erased)
        drawn = [
            row.entry
            for row in rows
            if isinstance(row.entry, Decision) and not row.entry.forced and scope in (None, row.entry.scope)
        ]
        acted = dict(zip((decision.id for decision in drawn), policies.all(drawn, record), strict=True))
        for row in rows:
            _check(record, row, acted, scope, seen, found, start)
        position = reached
    return found


def _read(record: Record, after: int, limit: int) -> tuple[list[Row], UnreadableRowError | None]:
    try:
        return record.read(after, limit), None
    except UnreadableRowError as error:
        return record.read(after, error.position - after - 1), error


def _expect(after: int, until: int, places: Set[int], found: Verification) -> None:
    """Name each stretch of positions in after+1 .. until where neither a row nor a tombstone is."""
    missing = [at for at in range(after + 1, until + 1) if at not in places]
    first = 0
    for i, at in enumerate(missing):
        if i + 1 == len(missing) or missing[i + 1] != at + 1:
            stretch = f"{at}" if i == first else f"{missing[first]} to {at}"
            found.faults.append(f"position {stretch}: missing; positions must have no gap")
            first = i + 1


def _check(
    record: Record,
    row: Row,
    acted: Mapping[str, Policy | None],
    scope: Scope | None,
    seen: dict[str, Scope],
    found: Verification,
    start: int,
) -> None:
    entry = row.entry
    if not isinstance(entry, Decision):
        decided = seen.get(entry.decision_id) or _scope_of(record, entry.decision_id, entry.scope.tenant)
        if decided != entry.scope:
            found.faults.append(
                f"position {row.position}: an outcome of {entry.decision_id}, which its scope never made"
            )
        return
    seen[entry.id] = entry.scope
    if scope not in (None, entry.scope):
        return
    found.decisions += 1
    policy = acted.get(entry.id)
    ended = row.position <= start or 0 < entry.seen <= start  # what it learned from is not there any more
    if policy is not None and entry.seen < row.position and replays(entry, policy):
        found.replayed += 1
    elif policy is None or (ended and entry.seen):
        reason = "forced: nobody drew them" if entry.forced else f"no policy {entry.scope} {entry.policy} here"
        found.unknown["erased epoch" if ended and not entry.forced else reason] += 1
    else:
        found.faults.append(f"position {row.position}: {entry.id} does not replay from {entry.policy}{_hint(entry)}")


def _hint(decision: Decision) -> str:
    if decision.seen:
        return f" and the record up to {decision.seen} (or rows there, or the configuration, changed)"
    made = decision.policy.startswith(("explore", "fixed:", "mix:"))
    return " (or the configuration changed: it is made from that)" if made else ""


def _scope_of(record: Record, decision_id: str, tenant: str) -> Scope | None:
    try:
        return record.decision(decision_id, tenant).scope
    except UnknownDecisionError:
        return None
