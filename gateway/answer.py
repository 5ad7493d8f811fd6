"""Decide, ask, record: the whole path of a prompt, whatever the models do on the way.

The decision keeps the arm that was drawn and its propensity. If that arm fails, others stand in, and what each attempt
came to is recorded with the arm it tells of, in one append: so the arm drawn learns what it did itself, and all that
was spent is counted. docs/failures.md says what happens when.
"""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self, TypeVar

import numpy as np

from bandits.config import ArmConfig, Config
from bandits.conversation import Talk
from bandits.router import Router
from bandits.settings.gateway import GatewayConfig
from bandits.types import Context, Decision
from gateway.adapter import Adapter, Ask, GatewayError, Piece, Reply
from gateway.attempt import CANCELLED, Attempt, Gathered, streamed, whole
from gateway.breaker import Breakers, Model, State
from gateway.fallback import incapable, roomier, stand_ins
from gateway.judge import Judges
from gateway.providers import open_adapters
from gateway.retry import RetryBudget, pause
from gateway.turn import decide

_log = logging.getLogger("gateway")
_T = TypeVar("_T")
_WAITING = 64  # decisions and reports that may wait for the disk at a time: they are written in groups


@dataclass(frozen=True, slots=True)
class Answer:
    """A decision, and what was served for it.   served: the arm that answered, the one drawn or one that stood in."""

    decision: Decision
    served: str
    reply: Reply
    attempts: tuple[Attempt, ...]


class UnansweredError(GatewayError):
    """No model answered. The record has the decision and its attempts, in the order in which they were made."""

    def __init__(self, error: GatewayError, decision: Decision, attempts: tuple[Attempt, ...]) -> None:
        spent = sum(attempt.cost_usd for attempt in attempts)
        super().__init__(str(error), spent, kind=error.kind, retry_after_s=error.retry_after_s)
        self.decision, self.attempts = decision, attempts


@dataclass(slots=True)
class _Call:
    """One request on its way.   until: its deadline, of the event loop's clock, s."""

    router: Router
    ask: Ask
    decision: Decision
    until: float
    waiting: list[str]  # arms that may stand in, in order
    probes: frozenset[Model]
    current: Gathered | None = None  # of the attempt under way
    attempts: list[Attempt] = field(default_factory=list)
    answer: Answer | None = None

    def arm(self, name: str) -> ArmConfig:
        return self.router.domain.arm(name)


class Stream:
    """An answer as it comes, open at its first token. Iterate it to its end, or `aclose` it: then it is recorded.

    decision: the draw.   served: the arm that answers.   answer: all of it, once the end was reached.
    Iterating raises UnansweredError if the model fails midway and no other may begin anew; what came before it stands.
    """

    def __init__(self, call: _Call, pieces: AsyncGenerator[Piece, None]) -> None:
        self._call, self._pieces = call, pieces
        self._first: deque[Piece] = deque()

    @property
    def decision(self) -> Decision:
        """The draw."""
        return self._call.decision

    @property
    def served(self) -> str:
        """The arm that answers now."""
        if self._call.answer is not None:
            return self._call.answer.served
        return self._call.current.arm.name if self._call.current else self._call.decision.arm

    @property
    def answer(self) -> Answer:
        """The whole answer. Raises RuntimeError before the end."""
        if self._call.answer is None:
            raise RuntimeError("a stream must be read to its end before its answer is whole, but it was not.")
        return self._call.answer

    async def open(self) -> Self:
        """Wait for the first token."""
        async for piece in self._pieces:
            self._first.append(piece)
            if piece.text.strip() or piece.tool_calls:
                break
        return self

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Piece:
        return self._first.popleft() if self._first else await anext(self._pieces)

    async def aclose(self) -> None:
        """Stop reading: the connection is let go of, and what came is recorded."""
        await self._pieces.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()


class Gateway:
    """Answers prompts with the arm that a router draws, and with others when that one fails. One for a process.

    adapters: by the name of the provider.   clock: UTC, seconds since the epoch.   rng: jitter of pauses, nothing else.
    """

    def __init__(
        self,
        adapters: Mapping[str, Adapter],
        settings: GatewayConfig | None = None,
        *,
        clock: Callable[[], float] = time.time,
        rng: np.random.Generator | None = None,
    ) -> None:
        self.adapters, self._settings, self._clock = adapters, settings or GatewayConfig(), clock
        self._rng = rng or np.random.default_rng()
        self.judges = Judges(adapters, self._rng.spawn(1)[0], clock)
        self._breakers, self._budget = Breakers(self._settings), RetryBudget(self._settings.retry_share)
        self._threads = ThreadPoolExecutor(_WAITING, "gateway")
        self._reports: set[asyncio.Task[None]] = set()
        self.counts: Counter[str] = Counter()  # requests, retries, stand_ins, unanswered, cancelled

    async def answer(
        self,
        router: Router,
        ask: Ask,
        *,
        context: Context | None = None,
        user: str = "",
        conversation: Talk | str = "",
        pinned: str | None = None,
    ) -> Answer:
        """Answer with the arm that `router` draws, or one that stands in; recorded before this returns.

        context: (d,), where the caller knows more than the messages tell.   user, conversation: pseudonyms, or "".
        pinned: the arm that the caller insists on; no other stands in for it.
        Raises UnansweredError when no model answered, GatewayError when the pinned one is left alone, and what
        Router.decide raises.
        """
        call = await self._begin(router, ask, context, user, conversation, pinned)
        async with aclosing(self._run(call, is_streaming=False)) as pieces:
            async for _ in pieces:
                pass
        assert call.answer is not None
        return call.answer

    async def open_stream(
        self,
        router: Router,
        ask: Ask,
        *,
        context: Context | None = None,
        user: str = "",
        conversation: Talk | str = "",
        pinned: str | None = None,
    ) -> Stream:
        """The same as it comes; returns once the first token is there, so what failed before it was retried by then."""
        call = await self._begin(router, ask, context, user, conversation, pinned)
        return await Stream(call, self._run(call, is_streaming=True)).open()

    def states(self) -> dict[Model, State]:
        """The breakers of all models that were called."""
        return self._breakers.states(time.monotonic())

    async def close(self) -> None:
        """Wait for what is being recorded, and let go of all connections."""
        await asyncio.gather(*self._reports, return_exceptions=True)
        await self.judges.close()
        for adapter in self.adapters.values():
            await adapter.close()
        self._threads.shutdown(wait=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def _begin(
        self, router: Router, ask: Ask, context: Context | None, user: str, conversation: Talk | str, pinned: str | None
    ) -> _Call:
        """Decide among the arms that can take the prompt and are not left alone: the others have probability 0."""
        until = _now() + self._settings.total_s
        arms = [arm for arm in router.domain.arms if pinned is None or arm.name == pinned]
        closed = {arm.name: reason for arm in arms if (reason := self._unable(arm, ask))}
        resting, probes = self._breakers.enter({_model(arm) for arm in arms if arm.name not in closed}, _now())
        closed |= {arm.name: resting[_model(arm)] for arm in arms if _model(arm) in resting}
        try:
            if pinned in closed:
                raise GatewayError(f"{pinned} was asked for by name, but {closed[pinned]}.", kind="resting")

            decision = await decide(router, ask, context, user, conversation, closed, pinned, self._aside)
        except BaseException:
            self._breakers.leave(probes)
            raise
        drawn = _model(router.domain.arm(decision.arm))
        self._breakers.leave(probes - {drawn})
        most = 0 if pinned is not None else self._settings.stand_ins
        waiting = stand_ins(decision, router.domain, closed, most)
        return _Call(router, ask, decision, until, waiting, probes & {drawn})

    def _unable(self, arm: ArmConfig, ask: Ask) -> str | None:
        return incapable(arm, ask) if arm.provider in self.adapters else "its provider is not configured"

    async def _run(self, call: _Call, *, is_streaming: bool) -> AsyncGenerator[Piece, None]:
        """The pieces of an answer; what was tried is recorded whichever way this ends."""
        self.counts["requests"] += 1
        self._budget.requested()
        try:
            async with aclosing(self._pieces(call, is_streaming)) as pieces:
                async for piece in pieces:
                    yield piece
        finally:
            report = asyncio.get_running_loop().create_task(self._report(call))
            self._reports.add(report)  # it goes on even if whoever waits is cancelled
            report.add_done_callback(self._reports.discard)
            await asyncio.shield(report)

    async def _pieces(self, call: _Call, is_streaming: bool) -> AsyncGenerator[Piece, None]:
        """Attempt after attempt, until one answers or none is left."""
        name, asked = call.decision.arm, 0
        while True:
            asked += 1
            gathered = call.current = Gathered(call.arm(name), _now())
            held = deque[Piece]()  # white space before the first word: shown with it, or never
            try:
                async with aclosing(self._attempt(call, gathered, is_streaming)) as pieces:
                    async for piece in pieces:
                        held.append(piece)
                        while held and gathered.has_begun:
                            yield held.popleft()
            except GatewayError as error:
                failed = self._failed(call, gathered, error)
                is_shown = is_streaming and gathered.has_begun
                may_go_on = not is_shown or self._settings.midway == "restart"
                following = await self._following(call, name, asked, error) if may_go_on else None
                if following is None:
                    self.counts["unanswered"] += 1
                    raise UnansweredError(error, call.decision, tuple(call.attempts)) from error
                _log.info("%s of decision %s failed (%s); %s follows", name, call.decision.id, failed, following)
                asked = asked if following == name else 0
                name = following
                if is_shown:
                    yield Piece(restart=True)
            else:
                self._answered(call, gathered)
                return

    async def _attempt(self, call: _Call, gathered: Gathered, is_streaming: bool) -> AsyncGenerator[Piece, None]:
        """One attempt. Where others may stand in, half of the time that is left is theirs."""
        now, arm = _now(), gathered.arm
        until = now + (call.until - now) / 2.0 if call.waiting else call.until
        adapter = self.adapters[arm.provider]
        if is_streaming:
            made = streamed(adapter, call.ask, gathered, until, call.until, self._settings)
        else:
            made = whole(adapter, call.ask, gathered, until)
        try:
            async with aclosing(made) as pieces:
                async for piece in pieces:
                    yield piece
        except (GatewayError, GeneratorExit):
            raise
        except Exception as error:  # a fault of an adapter must not cost the answer, nor go unrecorded
            where = "".join(traceback.format_tb(error.__traceback__))  # the error's own text may quote the prompt
            _log.error("the adapter of %s raised %s\n%s", arm.provider, type(error).__name__, where)
            raise GatewayError(
                f"an adapter must raise GatewayError, but that of {arm.provider} raised {type(error).__name__}.",
                kind="malformed",
            ) from error

    def _failed(self, call: _Call, gathered: Gathered, error: GatewayError) -> str:
        model = _model(gathered.arm)
        gathered.usage = gathered.usage or error.usage
        call.attempts.append(gathered.attempt(_now(), self._clock(), error.kind, error.cost_usd))
        call.current = None
        self._breakers.failed(model, error.kind, _now(), probe=model in call.probes, retry_after_s=error.retry_after_s)
        call.probes -= {model}
        return error.kind

    def _answered(self, call: _Call, gathered: Gathered) -> None:
        model, attempt = _model(gathered.arm), gathered.attempt(_now(), self._clock())
        self._breakers.answered(model, probe=model in call.probes)
        call.probes -= {model}
        call.attempts.append(attempt)
        call.current = None
        call.answer = Answer(call.decision, attempt.arm, gathered.reply(attempt), tuple(call.attempts))

    async def _following(self, call: _Call, name: str, asked: int, error: GatewayError) -> str | None:
        """The arm to ask next, the same once more or one that stands in; None where no arm or no time is left."""
        wait = pause(error.kind, error.retry_after_s, asked, self._settings.backoff_s, self._rng)
        in_time = wait is not None and _now() + wait < call.until
        if wait is not None and in_time and asked <= self._settings.retries and self._enter(call, name, wait):
            if self._budget.take():
                self.counts["retries"] += 1
                await asyncio.sleep(wait)
                return name
            self._leave(call)
        call.waiting = roomier(call.waiting, name, call.router.domain, error.kind)
        if _now() >= call.until:
            return None
        for only_closed in (True, False):
            for other in list(call.waiting):
                if self._enter(call, other, 0.0, only_closed=only_closed):
                    call.waiting.remove(other)
                    self.counts["stand_ins"] += 1
                    return other
        return None

    def _enter(self, call: _Call, name: str, wait: float, *, only_closed: bool = False) -> bool:
        """Whether an arm may be asked in `wait` seconds; a probe only where there is no better."""
        closed, probes = self._breakers.enter({_model(call.arm(name))}, _now() + wait)
        if closed or (probes and only_closed):
            self._breakers.leave(probes)
            return False
        call.probes |= probes
        return True

    def _leave(self, call: _Call) -> None:
        self._breakers.leave(call.probes)
        call.probes = frozenset()

    async def _report(self, call: _Call) -> None:
        """Record every attempt in one append; one that was broken off has cost something all the same."""
        if call.current is not None:
            self.counts[CANCELLED] += 1
            call.attempts.append(call.current.attempt(_now(), self._clock(), CANCELLED))
            call.current = None
        self._leave(call)
        served = call.answer.served if call.answer else None
        outcomes = [
            attempt.outcome(call.decision, excused=attempt.arm == served == call.decision.arm)
            for attempt in call.attempts
        ]
        if outcomes:
            await call.router.report_soon(*outcomes)
        if call.answer is not None:
            self.judges.offer(call.router, call.decision, call.ask.prompt, call.answer.reply.text, call.answer.served)

    async def _aside(self, blocking: Callable[[], _T]) -> _T:
        """Wait for the disk in a thread: the event loop has streams to serve."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, blocking)


def open_gateway(config: Config, recording: Path | None = None) -> Gateway:
    """A gateway to the providers of the configuration.   recording: what a replay answers from; None: its own.

    Raises what open_adapters raises.
    """
    adapters = open_adapters(config, recording=recording, connect_s=config.gateway.connect_s)
    return Gateway(adapters, config.gateway)


def _model(arm: ArmConfig) -> Model:
    return arm.provider, arm.model


def _now() -> float:
    return asyncio.get_running_loop().time()
