"""Which conversation a message belongs to, as bandits/conversation.py has it: later turns stay with the arm drawn.

A thread is one for each person who asks in it, and so are direct messages. In any other channel a question is one of
its own, which goes on in replies: who replies to an answer that was made for them stays in its conversation, which
stands in the record, at the decision that the answer's footer names. A thread that is opened on a question has that
question's id, so it goes on there too.

Discord's ids are not kept, only a pseudonym of both together, under the tenant's key.
"""

from __future__ import annotations

import asyncio

import discord

from bandits.conversation import Talk
from bandits.errors import ForgedIdError, UnknownDecisionError
from bandits.serving import Server
from bot import words


async def talk_of(message: discord.Message, me: int, server: Server) -> Talk:
    """The conversation of a message to the bot, whose id is `me`. Raises RecordError, KeyFileError."""
    if not isinstance(message.channel, discord.abc.GuildChannel):  # a thread, or direct messages
        return Talk(_key(server, message.channel.id, message.author.id))
    key = await _replied_to(message, me, server)
    return Talk(key) if key else Talk(_key(server, message.id, message.author.id), begins=True)


def _key(server: Server, place: int, user: int) -> str:
    return server.ids.conversation(server.router.scope, f"discord {place} {user}")


async def _replied_to(message: discord.Message, me: int, server: Server) -> str:
    """The conversation of the answer that is replied to; "" where it is none, or none of this person's."""
    said = message.reference.resolved if message.reference else None
    token = words.decision_of(said.content) if isinstance(said, discord.Message) and said.author.id == me else None
    if token is None:
        return ""
    scope = server.router.scope
    try:
        decision_id = server.ids.check(token, scope.tenant, str(message.author.id))
        made = await asyncio.to_thread(server.router.record.decision, decision_id, scope.tenant)
    except (ForgedIdError, UnknownDecisionError):
        return ""
    return made.conversation if made.scope == scope else ""
