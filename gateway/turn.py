"""What a request is to a router: its features, what it says of the turn before it, and the decision."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping

from bandits import features
from bandits.conversation import Talk
from bandits.router import Router
from bandits.signals import notice, tells
from bandits.types import Context, Decision
from gateway.adapter import Ask, text_of


async def decide(
    router: Router,
    ask: Ask,
    context: Context | None,
    user: str,
    conversation: Talk | str,
    closed: Mapping[str, str],
    pinned: str | None,
    aside: Callable[[Callable[[], Decision]], Awaitable[Decision]],
) -> Decision:
    """Decide, when what the request says of the turn before was heard.

    closed: arms that cannot answer now, with the reason.   aside: runs what has to wait for the disk in a thread.
    For the others, and what is raised, see Gateway.answer.
    """
    request = request_of(ask)
    known = features.context(request, router.domain.features) if context is None else context

    def waiting() -> Decision:
        notice(router, request, known, conversation, user)
        return router.decide(known, user, closed, conversation=conversation, pinned=pinned)

    if router.blocks or tells(Talk.of(conversation), user):
        return await aside(waiting)
    return await router.decide_soon(known, user, closed, conversation=conversation, pinned=pinned)


def request_of(ask: Ask) -> features.Request:
    """What features are made of: the last message of the user, and what was said before it."""
    users = [index for index, message in enumerate(ask.messages) if message.get("role") == "user"]
    before = ask.messages[: users[-1]] if users else ()
    turns = tuple(
        features.Turn(message["role"], text_of(message))
        for message in before
        if message.get("role") in ("user", "assistant")
    )
    return features.Request(ask.prompt, turns, time.time())
