"""A router that serves from a home what its scope's newest order says.

Where no order was ever given (rollout/), that is the newest good snapshot.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import numpy as np

from bandits.config import Config, DomainConfig
from bandits.day.checkpoint import load
from bandits.errors import (
    AuditError,
    ContextError,
    DuplicateOutcomeError,
    KeyFileError,
    RecordError,
    RolloutError,
    SnapshotError,
)
from bandits.folds.following import gently
from bandits.folds.state import CHECKPOINT_EVERY, resume, save
from bandits.home import Home
from bandits.ids import IdRing
from bandits.learners.frozen import thaw
from bandits.money.ledger import Ledger
from bandits.record.port import Record
from bandits.record.repeats import news
from bandits.rollout.controller import PAUSE_S, Canary, Controller, candidate
from bandits.rollout.machine import Order
from bandits.router import Router
from bandits.served import Serving, begin, first_policy, fit
from bandits.snapshots.keys import trusted_keys
from bandits.snapshots.loading import list_versions
from bandits.snapshots.reader import SnapshotReader
from bandits.types import Outcome, Scope


class Server:
    """A router, and what keeps it on what its scope's newest order says."""

    def __init__(
        self,
        home: Home,
        config: Config,
        scope: Scope,
        record: Record,
        rng: np.random.Generator,
        clock: Callable[[], float] = time.time,
        ledger: Ledger | None = None,
    ) -> None:
        domain = config.domains[scope.domain]
        self.ids = IdRing(home.root)
        self._home, self._clock, self._record = home, clock, record
        self._state = resume(home.checkpoint(scope), scope, domain, record)  # what the record says, and nothing else
        self._kept = 0  # position of the checkpoint
        self._reader: SnapshotReader | None = None
        self._found: Serving | None = None  # the newest snapshot that verified and fits
        self._expires = float("inf")  # of what was found for an order, UTC seconds
        self._unfit: Exception | None = None  # why the newest that verified cannot serve this router
        self.last_error: Exception | None = None
        self._controller = Controller(home, config, scope, record, clock)
        self.order: Order | None = None  # the newest that is good
        self.canary: Canary | None = None
        self._look(scope, domain)
        serving = self._found or first_policy(domain)
        learning = begin(serving, scope, domain, record)
        if learning is not None:
            load(home.learning(scope), learning, record)
        state = copy.deepcopy(self._state)
        self.router = Router(scope, domain, record, rng, clock, state, ledger, serving, learning)
        self._try_out()

    @property
    def pause_s(self) -> float:
        """The longest that the next look may wait, s: a canary is looked after more often."""
        return PAUSE_S if self.order is not None and self.order.active else float("inf")

    def refresh(self) -> bool:
        """Count what other processes did, and serve what the newest order says; True if it swapped.

        Never raises for what is wrong with record, snapshots or keys: it stands in `last_error` for as long as it is
        so, and what serves goes on serving.
        """
        try:
            self._look(self.router.scope, self.router.domain)
            if self.canary is None:
                self._try_out()  # first of all: nobody is served by it any more
            self._follow()
            swaps = self._found is not None and self._found.version != self.router.serving.version
            if swaps and self._found is not None:
                self.router.swap(self._found)
                self._kept = 0  # the checkpoint is of what served before
            self._try_out()
        except (RecordError, OSError) as error:
            self.last_error = error
            return False
        return swaps

    def _try_out(self) -> None:
        if self.canary is None:
            self.router.try_out(None)
        else:
            self.router.try_out(self.canary.serving, self.canary.takes)

    def _look(self, scope: Scope, domain: DomainConfig) -> None:
        """Find what serves; what is wrong with it, with the keys, or with the orders, stands in `last_error`."""
        try:
            sight = self._controller.look()
        except (RolloutError, RecordError, AuditError, KeyFileError, OSError) as error:
            self.last_error = error  # orders may have been given: so the newest snapshot is not what to serve now
            return
        self.order, self.canary = sight.order or self.order, sight.canary
        if self.order is None:
            self._look_for_newest(scope, domain)
        else:
            self._look_for_stable(self.order, scope, domain)
        self.last_error = self.last_error or (RolloutError(sight.fault) if sight.fault else None)

    def _look_for_stable(self, order: Order, scope: Scope, domain: DomainConfig) -> None:
        """Find the stable version of an order; where it is not fit to serve, the last good one stays, or an older one
        is found, never a newer one.
        """
        self.last_error = None
        if order.stable is None:
            self._found = first_policy(domain)
            return
        if self._found is not None and self._found.version == order.stable:
            if not self._clock() < self._expires:
                self.last_error = SnapshotError(
                    f"snapshot {scope}/{order.stable}: it must be used before {self._expires!r} (UTC seconds), but "
                    "that is over; publish a newer one. It keeps serving."
                )
            return
        versions = [order.stable]
        if self._found is None:
            listed = list_versions(
                self._home.snapshots, scope, trusted=trusted_keys(self._home.root), now=self._clock()
            )
            versions += [one.version for one in reversed(listed) if int(one.version) < int(order.stable)]
        for version in versions:
            try:
                self._found, self._expires = candidate(self._home, scope, version, self._clock(), domain)
                return
            except (SnapshotError, ContextError) as error:
                self.last_error = self.last_error or error

    def _look_for_newest(self, scope: Scope, domain: DomainConfig) -> None:
        try:
            reader = self._reader = self._reader or self._find_reader(scope)
        except (KeyFileError, OSError) as error:
            self.last_error = error
            return
        if reader is not None and reader.refresh(self._clock()) and reader.current is not None:
            manifest, self._unfit = reader.current.manifest, None
            try:
                self._found = fit(
                    Serving(thaw(reader.current.frozen), manifest.version, manifest.position), scope, domain
                )
            except (SnapshotError, ContextError) as error:
                self._unfit = error
        self.last_error = None if reader is None else self._unfit or reader.last_error

    def report_once(self, outcome: Outcome, *, request: str = "", event: str = "") -> bool:
        """Record what came back, unless it was heard already (see repeats.news); whether it was recorded.

        Raises what Router.report raises.
        """
        new = news(outcome, self._record.outcomes(outcome.decision_id), request=request, event=event)
        if new is None:
            return False
        try:
            self.router.report(new)
        except DuplicateOutcomeError:
            return False
        return True

    def _follow(self) -> None:
        """Catch up with the record, and keep a checkpoint so that a restart folds few rows."""
        position = self.router.catch_up()
        if position - self._kept >= CHECKPOINT_EVERY:
            for rows in gently(self._record, self._state.position):
                self._state.fold(rows)
            save(self._home.checkpoint(self.router.scope), self._state)
            self.router.known.keep(self._home.learning(self.router.scope))
            self._kept = self._state.position

    def _find_reader(self, scope: Scope) -> SnapshotReader | None:
        """A reader, once there is a key to trust: before the first publishing there is none."""
        trusted = trusted_keys(self._home.root)
        return SnapshotReader(self._home.snapshots, scope, trusted) if trusted else None


@contextmanager
def opened(home: Home, config: Config, scope: Scope) -> Iterator[Server]:
    """A server of one scope over a record and a ledger of its own, for as long as this lasts. Raises RecordError."""
    with ExitStack() as stack:
        record = stack.enter_context(home.open_record())
        ledger = home.open_ledger(config)
        if ledger is not None:
            stack.enter_context(ledger)
        yield Server(home, config, scope, record, np.random.default_rng(), ledger=ledger)
