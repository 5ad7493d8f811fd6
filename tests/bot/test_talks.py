"""A thread, direct messages, a chain of replies: each is a conversation, and later turns stay with the arm drawn."""

from __future__ import annotations

import asyncio

from bandits.conversation import FOLLOWS
from bandits.ids import bare
from bot.words import decision_of
from tests.bot.conftest import CODE, MENTION, QUESTION, running
from tests.bot.fake_discord import ALICE, BERT, CHANNEL, DM, GUILD, THREAD, FakeDiscord, Json


def reply_to(said: Json | None) -> Json:
    """What a message says of the one that it replies to; None: that one is gone."""
    reference = {"message_id": said["id"] if said else "1", "channel_id": CHANNEL, "guild_id": GUILD}
    return {"type": 19, "message_reference": reference, "referenced_message": said}


def test_a_thread_is_one_conversation_of_each_person(play):
    """Six questions of one person are one draw, those of another another; in the channel each question is drawn."""

    async def scene(_, bot):
        for author, channel in ((ALICE, THREAD), (BERT, THREAD), (ALICE, CHANNEL)):
            for _ in range(6):
                await bot.asked(MENTION + QUESTION, author=author, channel=channel)

        made = bot.decisions()
        for talk in (made[:6], made[6:12]):
            draw, *later = talk
            assert not draw.forced
            assert {turn.conversation for turn in talk} == {draw.conversation}
            assert {(turn.arm, turn.forced, turn.policy) for turn in later} == {(draw.arm, True, FOLLOWS + draw.id)}
        apart = made[12:]
        assert not any(turn.forced for turn in apart)
        assert len({turn.arm for turn in apart}) > 1
        talks = {turn.conversation for turn in made}
        assert len(talks) == 8
        assert all(len(talk) == 32 for talk in talks)  # pseudonyms, no ids of Discord

    play(scene)


def test_direct_messages_are_one_conversation(play):
    """The same arm answers all of them; of two who write, each has their own."""

    async def scene(_, bot):
        for author in (ALICE, ALICE, ALICE, BERT):
            await bot.asked(QUESTION, author=author, channel=DM)
        first, second, third, other = bot.decisions()
        assert (second.arm, third.arm) == (first.arm, first.arm)
        assert [turn.forced for turn in (first, second, third, other)] == [False, True, True, False]
        assert other.conversation != first.conversation

    play(scene)


def test_a_chain_of_replies_is_one_conversation_of_who_began_it(play):
    """Whoever replies to an answer that was made for another, or to one that is gone, begins a conversation."""

    async def scene(_, bot):
        answer = first = await bot.asked(MENTION + QUESTION)
        for prompt in (CODE, QUESTION, CODE):
            answer = await bot.asked(MENTION + prompt, **reply_to(answer))
        theirs = await bot.asked(MENTION + QUESTION, author=BERT, **reply_to(first))
        await bot.asked(MENTION + QUESTION, author=BERT, **reply_to(theirs))
        await bot.asked(MENTION + QUESTION, **reply_to(None))

        alice, bert, gone = bot.decisions()[:4], bot.decisions()[4:6], bot.decisions()[6]
        for draw, *later in (alice, bert):
            assert not draw.forced
            assert {(turn.arm, turn.policy) for turn in later} == {(draw.arm, FOLLOWS + draw.id)}
        assert not gone.forced
        assert len({turn.conversation for turn in (alice[0], bert[0], gone)}) == 3

    play(scene)


def test_what_is_said_of_a_later_turn_is_said_of_the_draw(play):
    """A vote on the third answer of a thread is an outcome of the first one's decision as well."""

    async def scene(_, bot):
        for _ in range(3):
            answer = await bot.asked(MENTION + CODE, channel=THREAD)
        await bot.voted(answer["id"], "👎")
        draw, _, last = bot.decisions()
        assert bare(decision_of(answer["content"])) == last.id
        assert [(vote.decision_id, vote.vote) for vote in bot.votes()] == [(last.id, -1), (draw.id, -1)]

    play(scene)


def test_a_conversation_outlives_a_restart(world, point):
    """Nothing of it is in memory: another process goes on with thread and chain."""

    async def stage():
        async with FakeDiscord() as fake:
            point(fake.port)
            async with running(world, fake) as bot:
                answer = await bot.asked(MENTION + QUESTION)
                await bot.asked(MENTION + QUESTION, channel=THREAD)
            async with running(world, fake) as bot:
                await bot.asked(MENTION + QUESTION, **reply_to(answer))
                await bot.asked(MENTION + QUESTION, channel=THREAD)
                made = bot.decisions()
        assert [turn.policy for turn in made[2:]] == [FOLLOWS + turn.id for turn in made[:2]]

    asyncio.run(stage())
