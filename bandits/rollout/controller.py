"""The controller: look at orders, evidence and probes, and act on what follows.

Every process that serves has one for each scope, and so has `pilotage watch`. All of them fold the same record, so they
come to the same verdict; whoever has the signing key acts on it, and the token of the book lets one of them. Who has no
key still stops its own canary at once, and nobody's lease outlives the last look that found all well.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from bandits.config import Config, DomainConfig
from bandits.errors import PilotageError, SnapshotError
from bandits.learners.frozen import thaw
from bandits.record.port import Record
from bandits.rollout import probes
from bandits.rollout.evidence import Evidence
from bandits.rollout.machine import Judged, Order, after
from bandits.rollout.orders import LEASE_S, Lease, OrderBook, Seen
from bandits.rollout.sealing import seal
from bandits.rollout.slots import canary_ends, place
from bandits.served import Serving, fit
from bandits.snapshots.keys import SigningKey, signing_key, trusted_keys
from bandits.snapshots.loading import load
from bandits.types import Scope

if TYPE_CHECKING:
    from bandits.home import Home

RENEW_S = 1.0  # a lease younger than this is not renewed
PROBE_S = 5.0  # between two probes
PAUSE_S = 0.25  # between two looks while a canary serves


@dataclass(frozen=True, slots=True)
class Canary:
    """A candidate, and leave for it to serve a few for a few seconds."""

    serving: Serving
    order: Order
    lease: Lease
    evidence: Evidence

    def takes(self, unit: str, now: float) -> bool:
        """Whether it serves this unit (user, or decision where there is none) at `now`, UTC seconds."""
        if self.evidence.breach is not None:  # known here before the order could be written
            return False
        return self.lease.holds(now) and place(self.order.seed, unit) < canary_ends(self.order.share)


class Sight(NamedTuple):
    """What a look found."""

    order: Order | None
    canary: Canary | None
    fault: str | None


class Controller:
    """Looks after the rollouts of one scope. One thread at a time."""

    def __init__(self, home: Home, config: Config, scope: Scope, record: Record, clock: Callable[[], float]) -> None:
        self._home, self._scope, self._record, self._clock = home, scope, record, clock
        self._domain = config.domains[scope.domain]
        self._book: OrderBook | None = None
        self._candidate: tuple[str, Serving] | None = None  # seed of the rollout, and what it is about
        self._probed = self._tick = -float("inf")  # seconds of a clock that never jumps
        self._fault: str | None = None  # what the last probe found
        self._sealed = 0  # number of the last order that stands in the audit chain
        self.evidence: Evidence | None = None

    def look(self) -> Sight:
        """What serves now, after doing what the evidence calls for.

        Raises RolloutError, RecordError, KeyFileError, OSError where something cannot be read: then nothing changes,
        no lease is renewed, and a canary ends with the one it has.
        """
        book = self._open()
        if book is None:
            return Sight(None, None, None)
        seen = book.read(self._scope)
        order, key = seen.order, self._key()
        if order is None:
            return Sight(None, None, seen.fault)
        if order.active:
            order, seen = self._act(book, seen, order, key)
        if key is not None and order.number > self._sealed:
            self._sealed = seal(self._home, book, self._scope)
        return Sight(order, self._canary(order, seen), seen.fault or self._fault)

    def _act(self, book: OrderBook, seen: Seen, order: Order, key: SigningKey | None) -> tuple[Order, Seen]:
        now = self._clock()
        verdict = self._judge(order, seen)
        following = after(order, verdict, now)
        if key is None:
            return order, seen
        if following is not order:
            lease = Lease(self._scope, 0, now, now + LEASE_S, 0.0) if following.phase == "canary" else None
            return self._place(book, seen, following, lease, key)
        if order.phase == "canary" and self._candidate is not None and self._fault is None and _is_due(seen.lease, now):
            book.renew(_renewed(order, seen.lease, now), key, seen)
            seen = book.read(self._scope)
        return order, seen

    def _place(
        self, book: OrderBook, seen: Seen, order: Order, lease: Lease | None, key: SigningKey
    ) -> tuple[Order, Seen]:
        book.place(order, key, seen, lease)
        found = book.read(self._scope)  # ours, or that of whoever was faster
        return found.order or order, found

    def _judge(self, order: Order, seen: Seen) -> Judged:
        """What evidence and probes say: a fault of either ends the rollout."""
        if self.evidence is None or self.evidence.seed != order.seed:
            self.evidence = Evidence(order, self._domain)
        self.evidence.follow(self._record)
        self._probe(order)
        if self._fault is not None:
            return Judged("fail", self._fault, who="probe")
        return self.evidence.judge(order, seen.lease.served if seen.lease else 0.0)

    def _probe(self, order: Order) -> None:
        """Load the candidate anew and put the golden contexts to it, every few seconds."""
        ticks = time.monotonic()
        if self._candidate is not None and self._candidate[0] != order.seed:
            self._candidate, self._probed, self._fault = None, -float("inf"), None
        if ticks - self._probed < PROBE_S:
            return
        try:
            found, _ = candidate(self._home, self._scope, str(order.candidate), self._clock(), self._domain)
        except SnapshotError as error:
            if isinstance(error.__cause__, OSError):  # the store is down, which is no fault of the snapshot
                return
            self._fault = str(error)
        except (PilotageError, ValueError) as error:
            self._fault = str(error)
        else:
            self._fault = probes.fault(found.policy, self._domain)
            if self._candidate is None and self._fault is None:
                self._candidate = order.seed, found
        self._probed = ticks

    def _canary(self, order: Order, seen: Seen) -> Canary | None:
        """What this process may serve of it, whatever others think."""
        evidence, found = self.evidence, self._candidate
        if order.phase != "canary" or seen.lease is None or found is None or found[0] != order.seed:
            return None
        if self._fault is not None or evidence is None or evidence.seed != order.seed or evidence.breach is not None:
            return None
        return Canary(found[1], order, seen.lease, evidence)

    def _open(self) -> OrderBook | None:
        """The book, once there is one: before the first order there need be neither record nor key."""
        if self._book is None:
            file, trusted = self._home.record_file, trusted_keys(self._home.root)
            if trusted and (file is None or file.exists()):
                self._book = OrderBook(self._home.record_url, trusted)
        return self._book

    def _key(self) -> SigningKey | None:
        """The key that signs here; None on a host that only trusts one."""
        return signing_key(self._home.root) if (self._home.root / "keys" / "signing.key").exists() else None


def candidate(home: Home, scope: Scope, version: str, now: float, domain: DomainConfig) -> tuple[Serving, float]:
    """A version as it would serve, and when it expires, UTC seconds. Raises SnapshotError, ContextError."""
    found = load(home.snapshots, scope, version, trusted=trusted_keys(home.root), now=now)
    return fit(Serving(thaw(found.frozen), version, found.manifest.position), scope, domain), found.manifest.expires


def _is_due(lease: Lease | None, now: float) -> bool:
    return lease is None or not lease.holds(now) or now - lease.issued >= RENEW_S


def _renewed(order: Order, lease: Lease | None, now: float) -> Lease:
    """A fresh lease. Time that has served counts for as long as a lease can hold, however far the clock has jumped."""
    served = 0.0 if lease is None else lease.served + min(max(now - lease.issued, 0.0), LEASE_S)
    return Lease(order.scope, order.number, now, now + LEASE_S, served)
