"""Which arms can take a prompt at all, and which one stands in when the one that was drawn failed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

from bandits.config import ArmConfig, DomainConfig
from bandits.types import Decision
from gateway.adapter import Ask, Failure

_CHARACTERS = 4.0  # of a token, about; a prompt that is too long all the same is asked of a model with more room


def tokens(ask: Ask) -> int:
    """About how many tokens a model has to hold: the messages, the tools and the answer asked for."""
    texts = sum(len(text) for message in ask.messages for text in _texts(message))
    tools = len(json.dumps([dict(tool) for tool in ask.tools])) if ask.tools else 0
    return round((texts + tools) / _CHARACTERS) + (ask.max_tokens or 0)


def incapable(arm: ArmConfig, ask: Ask) -> str | None:
    """Why an arm cannot take what is asked; None where it can, or where nothing is known against it."""
    if arm.context_tokens is not None and tokens(ask) > arm.context_tokens:
        return "its context is too short for the prompt"
    if ask.tools and not arm.tools:
        return "it calls no tools"
    if not arm.vision and any(_has_image(message) for message in ask.messages):
        return "it sees no images"
    return None


def stand_ins(decision: Decision, domain: DomainConfig, closed: Mapping[str, str], most: int) -> list[str]:
    """Arms that may answer for the one drawn, `most` at most, in the order in which to ask them.

    Those that might have been drawn (so they are capable, and the budget reaches them), the likeliest first: that is
    the order in which the policy itself prefers them. Then those that cost no more than the one drawn, the dearest of
    them first. Last, whatever the budget says, the cheapest that can take the prompt: nobody goes without an answer for
    want of the money that the dear arms are denied.

    closed: arms that cannot take the prompt, or that are left alone, with the reason; they never stand in.
    """
    chances = dict(zip(decision.arms, decision.probabilities.tolist(), strict=True))
    able = [arm for arm in domain.arms if arm.name not in closed and arm.name != decision.arm]
    likely = sorted((arm for arm in able if chances[arm.name] > 0.0), key=lambda arm: -chances[arm.name])
    dearest_first = sorted(able, key=lambda arm: -arm.usd_per_request)
    limit = domain.arm(decision.arm).usd_per_request
    order = [*likely, *(arm for arm in dearest_first if arm.usd_per_request <= limit), *dearest_first[-1:]]
    names = list(dict.fromkeys(arm.name for arm in order))
    if len(names) > most and dearest_first[-1].name not in names[:most]:
        return [*names[: most - 1], dearest_first[-1].name][:most]
    return names[:most]


def roomier(arms: Sequence[str], than: str, domain: DomainConfig, why: Failure) -> list[str]:
    """Of `arms`, those worth asking after `than` failed: with a prompt too long, only models with more room."""
    room = domain.arm(than).context_tokens
    if why != "too_long" or room is None:
        return list(arms)
    return [arm for arm in arms if (other := domain.arm(arm).context_tokens) is None or other > room]


def _texts(message: Mapping[str, object]) -> Iterable[str]:
    """What of a message takes room: its text, and what tools were called with."""
    content = message.get("content")
    if isinstance(content, str):
        yield content
    elif isinstance(content, Sequence):
        yield from (str(part.get("text", "")) for part in content if isinstance(part, Mapping))
    calls = message.get("tool_calls")
    if isinstance(calls, Sequence) and not isinstance(calls, str):
        yield json.dumps([dict(call) for call in calls if isinstance(call, Mapping)])


def _has_image(message: Mapping[str, object]) -> bool:
    content = message.get("content")
    parts = content if isinstance(content, Sequence) and not isinstance(content, str) else ()
    return any(isinstance(part, Mapping) and part.get("type") == "image_url" for part in parts)
