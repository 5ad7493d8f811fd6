"""The Discord bot: a mention becomes a decision and an answer, 👍 and 👎 on the answer become outcomes.

It keeps nothing of its own. Decisions and outcomes go to the record; which decision a reply belongs to stands in the
reply's footer (words.py), signed for whoever asked (bandits/ids.py). Of people only pseudonyms are recorded; neither
user ids nor what anybody wrote reach the record or the log.

How the record reads votes: the person who asked votes, nobody else, for the decision was made for them. Each 👍 or 👎
that they add is one outcome, `vote` +1 or -1, stamped when it arrived, unless it says the same as the one before: a
reaction taken away and given again is one vote, a changed mind is another (record/repeats.py). With `aggregate =
"last"` their last word counts. A measured quality (the replay adapter has one) outranks all votes, see bandits.rewards.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections import deque
from collections.abc import Collection, Sequence
from functools import partial
from typing import Any, Literal

import aiohttp
import discord

from bandits.errors import ForgedIdError, PilotageError
from bandits.features import Request, Turn, context
from bandits.serving import Server
from bandits.types import Outcome
from bot import words
from bot.fresh import keep_fresh
from bot.missed import missed, newest
from bot.network import PAUSES_S, patiently, told
from bot.talks import talk_of
from gateway.adapter import Ask, GatewayError
from gateway.answer import Gateway

_log = logging.getLogger("bot")

VOTES: dict[str, Literal[-1, 1]] = {"👍": 1, "👎": -1}
REMEMBERED = 1_000  # messages that are not answered again when the gateway delivers them twice

# What the bot has to hear, and no more. Discord sends the content of messages that mention it, and of direct messages,
# without the privileged message_content intent.
INTENTS = discord.Intents(guilds=True, guild_messages=True, dm_messages=True, guild_reactions=True, dm_reactions=True)

_UNDELIVERED = (discord.HTTPException, aiohttp.ClientError, OSError)


class Bot(discord.Client):
    """Answers mentions and direct messages through one server, and keeps that on the newest snapshot.

    gateway:    the language models.   prompts: those that it can answer, where it knows only some; None: any.
    refresh_s:  seconds between two looks for a newer snapshot.
    pauses_s:   seconds to wait after each failure of the network, before a request to Discord is made again.
    """

    def __init__(
        self,
        server: Server,
        gateway: Gateway,
        prompts: Collection[str] | None = None,
        *,
        refresh_s: float = 1.0,
        pauses_s: Sequence[float] = PAUSES_S,
        **options: Any,  # noqa: ANN401  (discord.Client's own)
    ) -> None:
        super().__init__(
            intents=INTENTS,
            allowed_mentions=discord.AllowedMentions.none(),
            max_messages=None,  # keep no message in memory
            member_cache_flags=discord.MemberCacheFlags.none(),  # nor who wrote it
            chunk_guilds_at_startup=False,
            **options,
        )
        self._server, self._gateway, self._prompts = server, gateway, prompts
        self._refresh_s, self._pauses_s = refresh_s, pauses_s
        self._seen: deque[int] = deque(maxlen=REMEMBERED)
        self._newest: int | None = None  # highest message id heard of; None before the first
        self._heard: int | None = None  # what _newest was when the connection dropped, until that is mended
        self._refreshing: asyncio.Task[None] | None = None

    async def setup_hook(self) -> None:
        """Start to look for newer snapshots."""
        self._refreshing = asyncio.create_task(keep_fresh(self._server, self._refresh_s))

    async def close(self) -> None:
        """Leave Discord, stop looking, and let go of the models."""
        if self._refreshing is not None:
            self._refreshing.cancel()
        await super().close()
        await self._gateway.close()

    async def on_message(self, message: discord.Message) -> None:
        """Answer what a person writes to the bot, once."""
        self._newest = max(self._newest or 0, message.id)
        if not self._is_addressed(message) or message.id in self._seen:
            return
        self._seen.append(message.id)
        prompt = words.without_mention(message.content, self._me)
        if not prompt:
            await self._say(message, [words.no_prompt(self._prompts)])
        elif len(prompt) > words.LONGEST_PROMPT:
            await self._say(message, [words.TOO_LONG])
        elif self._prompts is not None and prompt not in self._prompts:
            # Nothing is drawn: that nobody recorded this prompt says nothing about any arm.
            await self._say(message, [words.not_recorded(self._prompts)])
        else:
            await self._answer(message, prompt)

    async def on_raw_reaction_add(self, payload: discord.RawReactionActionEvent) -> None:
        """Record a person's 👍 or 👎 on an answer. "Raw" events also come for messages from before a restart."""
        now = time.time()  # on arrival: votes keep their order, however long each message takes to fetch
        vote = VOTES.get(str(payload.emoji)[:1])  # without the tone of the skin
        by_bot = payload.user_id == self._me or (payload.member is not None and payload.member.bot)
        if vote is None or by_bot or payload.message_author_id not in (None, self._me):
            return
        fetch = partial(self.get_partial_messageable(payload.channel_id).fetch_message, payload.message_id)
        try:
            message = await patiently(fetch, self._pauses_s)
        except _UNDELIVERED as error:
            _log.warning("a vote is lost, the message could not be fetched: %s", told(error))
            return
        token = words.decision_of(message.content) if message.author.id == self._me else None
        if token is not None:
            await self._report(token, str(payload.user_id), now, vote)

    async def on_disconnect(self) -> None:
        """Note how far the bot has heard."""
        if self._heard is None:
            self._heard = self._newest

    async def on_resumed(self) -> None:
        """Forget that: Discord itself delivers what was missed."""
        self._heard = None

    async def on_ready(self) -> None:
        """Start with a new session; answer what was asked since the last one was lost."""
        router, since = self._server.router, self._heard
        _log.info("ready; %s is served by %s", router.scope, router.serving.version)
        self._heard, self._newest = None, max(self._newest or 0, newest(self))
        if since is not None:
            async for message in missed(self, since):
                await self.on_message(message)

    async def on_error(self, event_method: str, /, *_: object, **__: object) -> None:
        """Log where the handling of an event failed."""
        _log.error("%s failed: %s", event_method, told(sys.exception()))

    @property
    def _me(self) -> int:
        return self.user.id if self.user else 0  # no event comes before the login that sets it

    def _is_addressed(self, message: discord.Message) -> bool:
        """Whether a person wrote it, and to the bot. A reply to the bot that does not name it is talk among people."""
        if message.author.bot or message.is_system():
            return False
        return isinstance(message.channel, discord.DMChannel) or self._me in message.raw_mentions

    def _before(self, message: discord.Message) -> tuple[Turn, ...]:
        """What `message` replies to, where Discord sent that along; what was said before it is not asked for."""
        said = message.reference.resolved if message.reference else None
        if not isinstance(said, discord.Message) or not said.content:
            return ()
        is_mine = said.author.id == self._me
        text = words.body_of(said.content) if is_mine else words.without_mention(said.content, self._me)
        return (Turn("assistant" if is_mine else "user", text, said.created_at.timestamp()),)

    async def _answer(self, message: discord.Message, prompt: str) -> None:
        try:
            router, ids = self._server.router, self._server.ids
            asker = ids.pseudonym(router.scope.tenant, str(message.author.id))
            before = self._before(message)
            known = context(Request(prompt, before, message.created_at.timestamp()), router.domain.features)
            said = [{"role": turn.role, "content": turn.text} for turn in (*before, Turn("user", prompt))]
            talk = await talk_of(message, self._me, self._server)
            found = await self._gateway.answer(router, Ask(tuple(said)), context=known, user=asker, conversation=talk)
            texts = words.parts(found, ids.token(found.decision))
        except GatewayError:  # its text may quote the prompt
            _log.warning("a model did not answer; the record has it")
            await self._say(message, [words.model_failed(self._prompts)])
        except Exception as error:  # whatever it was, nobody is left without a word
            _log.error("a prompt was not answered: %s", told(error))
            await self._say(message, [words.NO_ANSWER])
        else:
            _log.info("decision %s answered by %s", found.decision.id, found.served)
            await self._say(message, texts, VOTES)

    async def _say(self, message: discord.Message, texts: Sequence[str], buttons: Collection[str] = ()) -> None:
        """Send `texts` in answer to `message`, with reactions to click under the last."""
        try:
            for number, text in enumerate(texts):
                # Discord takes a nonce once, so that a text sent again after a failure does not stand there twice.
                send = partial(message.channel.send, text, nonce=f"{message.id}-{number}")
                if number == 0:
                    send = partial(send, reference=message.to_reference(fail_if_not_exists=False))
                sent = await patiently(send, self._pauses_s)
            for button in buttons:
                await patiently(partial(sent.add_reaction, button), self._pauses_s)
        except _UNDELIVERED as error:
            _log.warning("a reply or its buttons could not be delivered: %s", told(error))

    async def _report(self, token: str, user: str, now: float, vote: Literal[-1, 1]) -> None:
        scope = self._server.router.scope
        try:
            decision_id = self._server.ids.check(token, scope.tenant, user)
            outcome = Outcome(decision_id, now, scope, vote=vote, source="user")
            recorded = await asyncio.to_thread(self._server.report_once, outcome)
        except ForgedIdError:
            _log.info("a vote was not recorded: it was not of the person who asked")
        except (PilotageError, OSError) as error:
            _log.warning("a vote was not recorded: %s", error if isinstance(error, PilotageError) else told(error))
        else:
            _log.info("decision %s %s a vote of %+d", decision_id, "got" if recorded else "still has", vote)
