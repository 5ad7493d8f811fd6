"""Scope + context -> Decision: which arms may be drawn, with what probability, and the draw itself, recorded.

The heart of Pilotage. Read `decide` top to bottom: allowed arms, distribution, draw, record.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bandits.allowing import allow, check_available, only
from bandits.config import DomainConfig
from bandits.conversation import ANOTHER, DEAR, Before, Talk, before, joined, may_join
from bandits.day.checkpoint import save
from bandits.day.learning import Learning
from bandits.errors import PilotageError, RecordError
from bandits.experiments.serving import Experiments
from bandits.features import check_context, width
from bandits.money.budget import Pacer
from bandits.money.caps import Reservation
from bandits.policy import Policy, draw, served
from bandits.purse import Purse, Reach, reach
from bandits.record.port import Record
from bandits.served import OnTrial, Serving, begin, first_policy, fit
from bandits.state import State, day_of, gently
from bandits.types import Context, Decision, Outcome, Scope, Slot, new_id

if TYPE_CHECKING:
    from bandits.money.ledger import Ledger

_AHEAD = 2_000  # own entries that the state may be ahead of its position before a decision catches up


class Router:
    """Decides for one scope. Thread-safe: decisions and outcomes may come from many callers.

    rng is the only source of chance; clock gives UTC seconds.   state: what the record says of the scope so far (see
    state.py); left out, the whole record is folded. Own decisions count at once, those of other processes as soon as
    the router catches up with the record.   ledger: hard caps of the scope's tenant (money/ledger.py); none: no caps.
    serving: what serves at first; left out, the first policy.   learning: what is known of it (see `swap`).
    """

    def __init__(
        self,
        scope: Scope,
        domain: DomainConfig,
        record: Record,
        rng: np.random.Generator,
        clock: Callable[[], float] = time.time,
        state: State | None = None,
        ledger: Ledger | None = None,
        serving: Serving | None = None,
        learning: Learning | None = None,
    ) -> None:
        self.scope, self.domain = scope, domain
        self._record, self._rng, self._clock = record, rng, clock
        self._purse = None if ledger is None else Purse(ledger, scope, record)
        self._experiments = Experiments(scope.domain, domain)
        self._lock = threading.Lock()
        self._state = state or State(scope, domain)
        self._ahead: Counter[str | Outcome] = Counter()  # own decisions (by id) and outcomes behind its position
        self._catching = threading.Lock()
        self._following: asyncio.Task[None] | None = None
        self._canary: OnTrial | None = None
        self._state.turn(day_of(clock()))
        self.swap(serving or first_policy(domain), learning)
        self.catch_up()

    @property
    def record(self) -> Record:
        """The record that it decides into."""
        return self._record

    def now(self) -> float:
        """What its clock says: UTC, seconds since the epoch."""
        return self._clock()

    @property
    def ledger(self) -> Ledger | None:
        """The caps of its tenant; None where there are none."""
        return None if self._purse is None else self._purse.ledger

    @property
    def serving(self) -> Serving:
        """The policy that serves now."""
        return self._serving

    @property
    def learned(self) -> Policy:
        """That policy with what was learned since its snapshot: what decisions are drawn from."""
        with self._lock:
            return self._serving.policy if self._learning is None else self._learning.learned

    @property
    def pacer(self) -> Pacer:
        """Spending of the current day."""
        return self._state.pacer

    @property
    def quarantined(self) -> tuple[str, ...]:
        """Arms that broke since what serves was published."""
        learning = self._learning
        return () if learning is None else tuple(compress(self.domain.arm_names, learning.watch.quarantined.tolist()))

    def swap(self, serving: Serving, learning: Learning | None = None) -> None:
        """Serve another policy from the next decision on. Refuses one for other features, or that knows no arm.

        learning: what was folded behind it before, of this record; left out, it is folded now.
        """
        serving = fit(serving, self.scope, self.domain)
        with self._catching:
            canary = self._canary
            if learning is None and canary is not None and canary.serving.version == serving.version:
                serving, learning = canary.serving, canary.learning  # folded already; a row shown twice counts once
            learning = self._behind(serving, learning)
            with self._lock:
                self._serving, self._learning = serving, learning

    def try_out(self, serving: Serving | None, takes: Callable[[str, float], bool] = lambda unit, now: False) -> None:
        """Let a canary, already fitted, serve those whom it takes; None: nobody.

        takes: of a unit (user, or decision id where nobody in particular asks) and the time of the decision.
        """
        with self._catching:
            before = self._canary
            if serving is None:
                self._canary = None
            elif before is not None and before.serving.version == serving.version:
                self._canary = replace(before, takes=takes)
            else:
                self._canary = OnTrial(serving, takes, self._behind(serving))

    def decide(
        self,
        context: Context,
        user: str = "",
        unavailable: Mapping[str, str] | None = None,
        *,
        conversation: Talk | str = "",
        pinned: str | None = None,
    ) -> Decision:
        """Draw an arm for one context, (d,), and record the draw; returns when the record has it.

        user: the pseudonym of whoever asks (ids.py), "" for nobody in particular.   unavailable: arms that cannot
        answer now, with the reason; what is drawn from, and logged, is the distribution over the others.
        conversation: what it belongs to, or the pseudonym of that: a later turn stays with the arm of the newest one,
        as conversation.py says.
        pinned: the arm that the caller insists on: logged as forced, and never learned from.
        Raises ContextError for a context that is not finite or not of the domain's length, UnknownArmError and
        UnavailableError for `unavailable` arms that the domain does not have, or that leave none, and with a ledger
        BudgetExhaustedError where a cap leaves no money for even the cheapest arm.
        """
        if self._is_far_ahead:
            self.catch_up()
        talk = Talk.of(conversation)
        newest = None if pinned else self._newest(talk)
        decision, held = self._draw(context, user, unavailable, talk, newest, pinned)
        with self._undone(decision, held):
            self._record.append(decision)
        return decision

    async def decide_soon(
        self,
        context: Context,
        user: str = "",
        unavailable: Mapping[str, str] | None = None,
        *,
        conversation: Talk | str = "",
        pinned: str | None = None,
    ) -> Decision:
        """`decide` for an event loop, which goes on while the record is written: a thread for each costs more.

        With a ledger, whose answer the draw waits for, call `decide` in a thread instead (see `blocks`).
        """
        if self._is_far_ahead and (self._following is None or self._following.done()):
            self._following = asyncio.create_task(self._catch_up_soon())  # nobody waits for it
        talk = Talk.of(conversation)
        newest = await asyncio.to_thread(self._newest, talk) if talk.key and not (talk.begins or pinned) else None
        decision, held = self._draw(context, user, unavailable, talk, newest, pinned)
        with self._undone(decision, held):
            await self._record.append_soon(decision)
        return decision

    @property
    def _is_far_ahead(self) -> bool:
        """Whether somebody should catch up, and nobody does."""
        return len(self._ahead) > _AHEAD and not self._catching.locked()

    async def _catch_up_soon(self) -> None:
        with suppress(RecordError):  # a record that cannot be read is told of by who looks after it
            await asyncio.to_thread(self.catch_up)

    @property
    def blocks(self) -> bool:
        """Whether a draw has to wait: for the ledger."""
        return self._purse is not None

    def _newest(self, talk: Talk) -> Before | None:
        """The newest turn of a conversation; None for one that begins, and for a single request."""
        return None if talk.begins else before(self._record, self.scope, talk.key, self.domain)

    def _draw(
        self,
        context: Context,
        user: str,
        unavailable: Mapping[str, str] | None,
        talk: Talk,
        newest: Before | None,
        pinned: str | None,
    ) -> tuple[Decision, Reservation | None]:
        """A decision that is counted, and not recorded yet; what is held for it."""
        context = check_context(context, width(self.domain.features))
        unavailable = check_available(self.scope, self.domain, unavailable or {})
        if pinned is not None:
            self.domain.arm(pinned)
        now = self._clock()
        held = None if self._purse is None else self._purse.hold(user, now, self._reach(pinned), self._noise())
        with self._lock:
            self._state.turn(day_of(now))
            canary = self._canary
            named = bool(self._experiments) or canary is not None
            decision_id = held.id if held else new_id(now, self._rng.bytes(10)) if named else None
            chosen = self._experiments.policy_for(user, decision_id, now) if decision_id else None
            version, slot, learning = self._serving.version, Slot.STABLE, self._learning
            policy = self._serving.policy if learning is None else learning.learned
            if chosen is not None:
                (policy, version, slot), learning = chosen, None
            elif canary is not None and canary.takes(user or str(decision_id), self._clock()):
                policy, version, slot, learning = canary.policy, canary.serving.version, Slot.CANARY, canary.learning
            pressure = self.pacer.pressure
            if pinned is None:
                room = None if held is None else held.amount
                allowed, excluded = allow(self.domain, policy.prices, self.pacer, room, unavailable)
            else:
                allowed, excluded = only(self.domain, pinned, "another was pinned")
            stays = newest.arm(allowed, policy, self.domain, now) if newest else None
            if newest and stays is not None:
                allowed, excluded = only(self.domain, self.domain.arm_names[stays], ANOTHER)
                version, slot = newest.follows, newest.decision.slot
            elif newest:
                pays = newest.worthwhile(allowed, policy, context, pressure, self.domain, now)
                dear = compress(self.domain.arm_names, (allowed & ~pays).tolist())
                allowed, excluded = pays, excluded | dict.fromkeys(dear, DEAR)
            probabilities = served(policy, context[None, :], allowed[None, :], pressure)[0]
            action, propensity = draw(probabilities, self._rng)
            decision = Decision(
                id=decision_id or new_id(now, self._rng.bytes(10)),
                time=now,
                scope=self.scope,
                schema=self.domain.features,
                context=context,
                arms=self.domain.arm_names,
                excluded=excluded,
                probabilities=probabilities,
                action=action,
                propensity=propensity,
                policy=version,
                slot=slot,
                price=policy.price(pressure),
                pressure=pressure,
                user=user,
                forced=pinned is not None or stays is not None,
                seen=0 if learning is None else learning.seen,
                conversation=talk.key,
            )
            self._state.add(decision)
            self._ahead[decision.id] += 1
        return decision, held

    @contextmanager
    def _undone(self, decision: Decision, held: Reservation | None) -> Iterator[None]:
        """Take back a decision that could not be recorded."""
        try:
            yield
        except PilotageError:
            with self._lock:
                self._arrived(decision)
                self._state.cancel(decision)
            if held is not None and self._purse is not None:
                self._purse.let_go(held)
            raise

    def report(self, *outcomes: Outcome) -> None:
        """Record what came back for decisions of this scope, all of it or nothing, and settle its cost.

        What is said of a later turn of a conversation is said of its draw too (conversation.py).
        """
        outcomes = (*outcomes, *joined(self._record, outcomes))
        with self._unheard(outcomes):
            self._record.append(*outcomes)
        if self._is_elsewhere(outcomes):
            self.catch_up()
        self._count(outcomes)

    async def report_soon(self, *outcomes: Outcome) -> None:
        """`report` for an event loop, which goes on while the record is written."""
        if self.blocks or any(map(may_join, outcomes)):  # which read first
            await asyncio.to_thread(self.report, *outcomes)
            return
        with self._unheard(outcomes):
            await self._record.append_soon(*outcomes)
        if self._is_elsewhere(outcomes):
            await asyncio.to_thread(self.catch_up)
        self._count(outcomes)

    @contextmanager
    def _unheard(self, outcomes: Sequence[Outcome]) -> Iterator[None]:
        """Know outcomes for our own before they are appended, whoever catches up; not if they cannot be."""
        with self._lock:
            self._ahead.update(outcomes)
        try:
            yield
        except PilotageError:
            with self._lock:
                for outcome in outcomes:
                    self._arrived(outcome)
            raise

    def _is_elsewhere(self, outcomes: Sequence[Outcome]) -> bool:
        """Whether another process decided: its promise has to be counted before what became of it."""
        return any(one.cost_usd is not None and one.decision_id not in self.pacer.reserved for one in outcomes)

    def _count(self, outcomes: Sequence[Outcome]) -> None:
        costs = [outcome for outcome in outcomes if outcome.cost_usd is not None]
        with self._lock:
            for outcome in costs:
                self._state.add(outcome)
        if self._purse is not None:
            self._purse.settle(*dict.fromkeys(outcome.decision_id for outcome in costs))

    def catch_up(self) -> int:
        """Count what other processes appended, and learn; the position of the record up to which the state now reaches.

        Raises RecordError where the record cannot be read; what serves goes on serving.
        """
        with self._catching:
            while not self._caught_up():
                self._learning = self._behind(self._serving)
                if self._canary is not None:
                    self._canary = replace(self._canary, learning=self._behind(self._canary.serving))
            return self._state.position

    def keep(self, path: Path) -> None:
        """Write a checkpoint of what was learned. Raises OSError, RecordError."""
        with self._catching:  # nothing is learned meanwhile
            if self._learning is not None and not self._outlived():  # what was erased must not come back
                save(path, self._learning, self._record)

    def _caught_up(self) -> bool:
        """Fold what is new; False if an erasure came in between, and what was read or learned may be gone."""
        if self._outlived():
            return False
        for batch in gently(self._record, self._state.position):
            with self._lock:
                for row in batch:
                    if self._arrived(row.entry):
                        self._state.skip(row)
                    else:
                        self._state.fold([row])
                for learning in self._learnings():
                    learning.fold(batch)
        return not self._outlived()

    def _learnings(self) -> list[Learning]:
        found = [self._learning, self._canary.learning if self._canary else None]
        return [each for each in found if each is not None]

    def _outlived(self) -> bool:
        return any(each.epoch != self._record.epoch().number for each in self._learnings())

    def _behind(self, serving: Serving, learning: Learning | None = None) -> Learning | None:
        """What the record says behind a snapshot, up to where the state has come; None where nothing is learned."""
        learning = learning or begin(serving, self.scope, self.domain, self._record)
        if learning is not None:
            learning.follow(self._record, self._state.position, gently)
        return learning

    def _arrived(self, entry: Decision | Outcome) -> bool:
        """Whether an entry is this router's own and was counted ahead of the position; from now on it is not."""
        key = entry.id if isinstance(entry, Decision) else entry
        left = self._ahead.get(key, 0) - 1
        if left > 0:
            self._ahead[key] = left
        else:
            self._ahead.pop(key, None)
        return left >= 0

    def _reach(self, pinned: str | None) -> Reach:
        """What the policies that may serve expect a request to cost."""
        others = [self._experiments.prices] if self._experiments else []
        others += [] if self._canary is None else [self._canary.serving.policy.prices]
        return reach(self.domain, self._serving.policy.prices, others, pinned)

    def _noise(self) -> bytes:
        with self._lock:
            return self._rng.bytes(10)
