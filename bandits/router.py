"""Scope + context -> Decision: which arms may be drawn, with what probability, and the draw itself, recorded.

The heart of Pilotage. Read `decide` top to bottom: allowed arms, distribution, draw, record.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import compress
from typing import TYPE_CHECKING

import numpy as np

from bandits.allowing import allow, check_available, only
from bandits.config import DomainConfig
from bandits.conversation import ANOTHER, DEAR, Before, Talk, before, joined, may_join
from bandits.day.learning import Learning
from bandits.errors import PilotageError, RecordError
from bandits.experiments.serving import Experiments
from bandits.features import check_context, width
from bandits.folds.state import State, day_of
from bandits.known import Known
from bandits.money.budget import Pacer
from bandits.money.caps import Reservation
from bandits.policy import Policy, draw, served
from bandits.purse import Purse, Reach, reach
from bandits.record.port import Record
from bandits.served import Serving, first_policy
from bandits.types import Context, Decision, Outcome, Scope, Slot, new_id

if TYPE_CHECKING:
    from bandits.money.ledger import Ledger


class Router:
    """Decides for one scope. Thread-safe: decisions and outcomes may come from many callers.

    rng is the only source of chance; clock gives UTC seconds.   state: what the record says of the scope so far
    (folds/state.py); left out, the whole record is folded. Own decisions count at once, those of other processes as
    soon as the router catches up with the record.   ledger: hard caps of the scope's tenant (money/ledger.py); none: no
    caps.   serving: what serves at first; left out, the first policy.   learning: what is known of it (see `swap`).
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
        self._following: asyncio.Task[None] | None = None
        state = state or State(scope, domain)
        state.turn(day_of(clock()))
        self.known = Known(state, record, serving or first_policy(domain), learning)

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
        return self.known.serving

    @property
    def learned(self) -> Policy:
        """That policy with what was learned since its snapshot: what decisions are drawn from."""
        with self.known.lock:
            return self.known.policy

    @property
    def pacer(self) -> Pacer:
        """Spending of the current day."""
        return self.known.state.pacer

    @property
    def quarantined(self) -> tuple[str, ...]:
        """See `Known.quarantined`."""
        return self.known.quarantined

    def swap(self, serving: Serving, learning: Learning | None = None) -> None:
        """See `Known.swap`."""
        self.known.swap(serving, learning)

    def try_out(self, serving: Serving | None, takes: Callable[[str, float], bool] = lambda unit, now: False) -> None:
        """See `Known.try_out`."""
        self.known.try_out(serving, takes)

    def catch_up(self) -> int:
        """See `Known.catch_up`."""
        return self.known.catch_up()

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
        if self.known.is_far_behind:
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
        if self.known.is_far_behind and (self._following is None or self._following.done()):
            self._following = asyncio.create_task(self._catch_up_soon())  # nobody waits for it
        talk = Talk.of(conversation)
        newest = await asyncio.to_thread(self._newest, talk) if talk.key and not (talk.begins or pinned) else None
        decision, held = self._draw(context, user, unavailable, talk, newest, pinned)
        with self._undone(decision, held):
            await self._record.append_soon(decision)
        return decision

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
        now, known = self._clock(), self.known
        held = None if self._purse is None else self._purse.hold(user, now, self._reach(pinned), self._noise())
        with known.lock:
            known.state.turn(day_of(now))
            canary, pacer = known.canary, known.state.pacer
            named = bool(self._experiments) or canary is not None
            decision_id = held.id if held else new_id(now, self._rng.bytes(10)) if named else None
            chosen = self._experiments.policy_for(user, decision_id, now) if decision_id else None
            policy, version, slot, learning = known.policy, known.serving.version, Slot.STABLE, known.learning
            if chosen is not None:
                (policy, version, slot), learning = chosen, None
            elif canary is not None and canary.takes(user or str(decision_id), self._clock()):
                policy, version, slot, learning = canary.policy, canary.serving.version, Slot.CANARY, canary.learning
            pressure = pacer.pressure
            if pinned is None:
                room = None if held is None else held.amount
                allowed, excluded = allow(self.domain, policy.prices, pacer, room, unavailable)
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
            known.count(decision)
        return decision, held

    @contextmanager
    def _undone(self, decision: Decision, held: Reservation | None) -> Iterator[None]:
        """Take back a decision that could not be recorded."""
        try:
            yield
        except PilotageError:
            self.known.take_back(decision)
            if held is not None and self._purse is not None:
                self._purse.let_go(held)
            raise

    def report(self, *outcomes: Outcome) -> None:
        """Record what came back for decisions of this scope, all of it or nothing, and settle its cost.

        What is said of a later turn of a conversation is said of its draw too (conversation.py).
        """
        outcomes = (*outcomes, *joined(self._record, outcomes))
        with self.known.hearing(outcomes):
            self._record.append(*outcomes)
        if self._is_elsewhere(outcomes):
            self.catch_up()
        self._count(outcomes)

    async def report_soon(self, *outcomes: Outcome) -> None:
        """`report` for an event loop, which goes on while the record is written."""
        if self.blocks or any(map(may_join, outcomes)):  # which read first
            await asyncio.to_thread(self.report, *outcomes)
            return
        with self.known.hearing(outcomes):
            await self._record.append_soon(*outcomes)
        if self._is_elsewhere(outcomes):
            await asyncio.to_thread(self.catch_up)
        self._count(outcomes)

    def _is_elsewhere(self, outcomes: Sequence[Outcome]) -> bool:
        """Whether another process decided: its promise has to be counted before what became of it."""
        return any(one.cost_usd is not None and one.decision_id not in self.pacer.reserved for one in outcomes)

    def _count(self, outcomes: Sequence[Outcome]) -> None:
        costs = [outcome for outcome in outcomes if outcome.cost_usd is not None]
        self.known.settle(costs)
        if self._purse is not None:
            self._purse.settle(*dict.fromkeys(outcome.decision_id for outcome in costs))

    def _reach(self, pinned: str | None) -> Reach:
        """What the policies that may serve expect a request to cost."""
        others = [self._experiments.prices] if self._experiments else []
        canary = self.known.canary
        others += [] if canary is None else [canary.serving.policy.prices]
        return reach(self.domain, self.serving.policy.prices, others, pinned)

    def _noise(self) -> bytes:
        with self.known.lock:
            return self._rng.bytes(10)
