"""One attempt of one model to answer: under deadlines, with its cost, and as the record keeps it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from bandits.config import ArmConfig
from bandits.settings.gateway import GatewayConfig
from bandits.types import FAILED, Decision, Outcome
from gateway.adapter import Adapter, Ask, Failure, Finish, GatewayError, Piece, Reply, ToolCall, Usage
from gateway.providers import cost

# What says nothing of the model: the request itself is at fault, or our key and purse are (the breaker and the log tell
# of those). All else is the model's failure, also a prompt too long for it: it was not able to answer.
BLAMELESS: frozenset[Failure] = frozenset({"bad_request", "denied", "no_credit", "unknown_prompt"})
# The provider turned the call away before a model worked on it: that is free. After anything else it may be billed.
FREE: frozenset[Failure] = BLAMELESS | {"refused", "rate_limited", "server", "too_long", "connect_timeout"}
CANCELLED: Literal["cancelled"] = "cancelled"  # whoever asked went away; that says nothing of the model either


@dataclass(frozen=True, slots=True)
class Attempt:
    """What one attempt came to.

    failure: None where it answered; "cancelled" where whoever asked went away.   time: UTC, s, of its end.
    """

    arm: str
    provider: str
    time: float
    latency_s: float
    cost_usd: float
    failure: Failure | Literal["cancelled"] | None = None
    finish: Finish | None = None
    quality: float | None = None
    usage: Usage | None = None
    first_token_s: float | None = None

    def outcome(self, decision: Decision, *, excused: bool = False) -> Outcome:
        """As the record keeps it. The arm that was drawn and failed earns quality 0; a stand-in speaks for itself.

        excused: it failed at first and answered when asked again: the failure costs, and says nothing of quality.
        """
        is_drawn = self.arm == decision.arm
        quality = self.quality
        if self.failure is not None:
            blamed = self.failure != CANCELLED and self.failure not in BLAMELESS
            quality = 0.0 if is_drawn and blamed and not excused else None
        return Outcome(
            decision.id,
            self.time,
            decision.scope,
            quality=quality,
            cost_usd=self.cost_usd,
            latency_s=self.latency_s,
            source=self.provider,
            arm="" if is_drawn else self.arm,
            result=self.finish or "stop" if self.failure is None else FAILED + self.failure,
            input_tokens=self.usage.input_tokens if self.usage else None,
            output_tokens=self.usage.output_tokens if self.usage else None,
            first_token_s=self.first_token_s,
        )


@dataclass(slots=True)
class Gathered:
    """What came so far of one attempt. Times are of the event loop's clock, s."""

    arm: ArmConfig
    started: float
    texts: list[str] = field(default_factory=list)
    calls: dict[int, dict[str, Any]] = field(default_factory=dict)  # by index
    finish: Finish | None = None
    usage: Usage | None = None
    quality: float | None = None
    cost_usd: float | None = None
    first_token: float | None = None
    last_token: float | None = None

    @property
    def has_begun(self) -> bool:
        """Whether something came that a person or a tool can use."""
        return self.first_token is not None

    def add(self, piece: Piece, now: float) -> None:
        """Take in the next piece."""
        if piece.tool_calls or piece.text.strip() or (piece.text and self.has_begun):
            self.first_token, self.last_token = self.first_token or now, now
        if piece.text:
            self.texts.append(piece.text)
        for delta in piece.tool_calls:
            _merge(self.calls.setdefault(int(delta.get("index", len(self.calls))), {}), delta)
        self.finish, self.usage = piece.finish or self.finish, piece.usage or self.usage
        self.quality = self.quality if piece.quality is None else piece.quality
        self.cost_usd = self.cost_usd if piece.cost_usd is None else piece.cost_usd

    def attempt(
        self, now: float, time: float, failure: Failure | Literal["cancelled"] | None = None, cost_usd: float = 0.0
    ) -> Attempt:
        """What it came to.   cost_usd: what a failure is known to have cost; it costs no less than what came did.

        Where neither usage nor price is known, an answer that may be billed counts with the arm's usual price: rather
        too much than a cap passed unseen.
        """
        if self.cost_usd is not None:
            spent = self.cost_usd
        elif self.usage is not None or failure not in FREE:
            spent = cost(self.arm, self.usage)
        else:
            spent = 0.0
        return Attempt(
            self.arm.name,
            self.arm.provider,
            time,
            max(now - self.started, 0.0),
            max(spent, cost_usd),
            failure,
            self.finish,
            self.quality,
            self.usage,
            None if self.first_token is None else max(self.first_token - self.started, 0.0),
        )

    def reply(self, attempt: Attempt) -> Reply:
        """All that came, in one."""
        calls: tuple[ToolCall, ...] = tuple(self.calls[index] for index in sorted(self.calls))
        return Reply(
            "".join(self.texts),
            self.arm.model,
            attempt.cost_usd,
            attempt.latency_s,
            self.quality,
            calls,
            self.finish or ("tool_calls" if calls else "stop"),
            self.usage,
            attempt.first_token_s,
        )


async def whole(adapter: Adapter, ask: Ask, gathered: Gathered, until: float) -> AsyncGenerator[Piece, None]:
    """The answer asked for in one piece, by `until` (the event loop's clock); nothing comes before all of it did."""
    arm = gathered.arm
    try:
        async with asyncio.timeout_at(until):
            pieces = await adapter.complete(arm.model, ask)
    except TimeoutError:
        raise _late(arm, "total_timeout", "the whole answer did not come in time") from None
    for piece in pieces:
        gathered.add(piece, _now())
    _not_empty(gathered)
    for piece in pieces:
        yield piece


async def streamed(
    adapter: Adapter, ask: Ask, gathered: Gathered, until: float, ends: float, settings: GatewayConfig
) -> AsyncGenerator[Piece, None]:
    """The answer as it streams: its first token by `until` at the latest, no long silence after it, all by `ends`.

    Only what a reader could use counts as a token: a provider that keeps the line warm does not hold us for ever.
    """
    arm, patient_until = gathered.arm, min(gathered.started + settings.first_token_s, until)
    pieces = adapter.stream(arm.model, ask)
    try:
        while (piece := await _next(pieces, min(patient_until, ends), arm, gathered, settings)) is not None:
            now = _now()
            gathered.add(piece, now)
            if gathered.last_token == now:
                patient_until = now + settings.stall_s
            yield piece
    finally:
        if isinstance(pieces, AsyncGenerator):
            await pieces.aclose()  # lets go of the connection, whoever gave up
    _not_empty(gathered)


async def _next(
    pieces: AsyncIterator[Piece], until: float, arm: ArmConfig, gathered: Gathered, settings: GatewayConfig
) -> Piece | None:
    """The next piece; None at the end of the answer, or of a provider that says no more after it finished."""
    try:
        async with asyncio.timeout_at(until):
            return await anext(pieces, None)
    except TimeoutError:
        if gathered.finish is not None and gathered.has_begun:
            return None
        raise _silent(arm, gathered, settings) from None


def _silent(arm: ArmConfig, gathered: Gathered, settings: GatewayConfig) -> GatewayError:
    now = _now()
    if (
        gathered.last_token is not None and now - gathered.last_token >= 0.99 * settings.stall_s
    ):  # a timer may ring early by a tick
        return _late(arm, "stalled", f"no token came for {settings.stall_s:g} s")
    if gathered.last_token is not None:
        return _late(arm, "total_timeout", "the whole answer did not come in time")
    return _late(arm, "first_token_timeout", f"no token came within {now - gathered.started:.1f} s")


def _late(arm: ArmConfig, kind: Failure, what: str) -> GatewayError:
    return GatewayError(f"{arm.name} must answer before its deadline, but {what}; ask again later.", kind=kind)


def _not_empty(gathered: Gathered) -> None:
    if not any(text.strip() for text in gathered.texts) and not gathered.calls:
        raise GatewayError(
            f"an answer must have a text or call a tool, but {gathered.arm.name} gave neither; ask another model.",
            kind="empty",
        )


def _merge(call: dict[str, Any], delta: Mapping[str, Any]) -> None:
    """Put a delta of a tool call, in OpenAI's form, to what came of it: arguments grow, the rest is named once."""
    for key in ("id", "type", "extra_content"):  # the last carries a signature that Gemini wants back
        if delta.get(key):
            call[key] = delta[key]
    told, function = delta.get("function") or {}, call.setdefault("function", {"name": "", "arguments": ""})
    function["name"] = told.get("name") or function["name"]
    function["arguments"] += told.get("arguments") or ""
    call.setdefault("type", "function")


def _now() -> float:
    return asyncio.get_running_loop().time()
