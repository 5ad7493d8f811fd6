"""Votes: whose they are, which of them count, and which decision they reach."""

from __future__ import annotations

import asyncio

from bandits.home import Home
from bandits.ids import bare
from bandits.rewards import reward
from bandits.settings.reward import RewardConfig
from bot.words import decision_of
from tests.bot.conftest import MENTION, QUESTION, World, running
from tests.bot.fake_discord import ALICE, BERT, BOT, DM, OTHER_BOT, FakeDiscord


def test_votes_of_people_are_outcomes(play):
    """👍 is +1 and 👎 -1, of any skin tone, in a guild and in a direct message."""

    async def scene(_, bot):
        reply = await bot.asked(MENTION + QUESTION)
        await bot.voted(reply["id"], "👍🏽")
        direct = await bot.asked(QUESTION, channel=DM)
        await bot.voted(direct["id"], "👎")

        first, second = bot.decisions()
        votes = [(v.decision_id, v.vote, v.source, v.scope) for v in bot.votes()]
        assert votes == [(first.id, 1, "user", first.scope), (second.id, -1, "user", second.scope)]

    play(scene)


def test_other_reactions_are_no_votes(play):
    """Not the bot's own buttons, not another bot's, no other emoji, not on what only looks like a reply."""

    async def scene(fake, bot):
        reply = await bot.asked(MENTION + QUESTION)
        await fake.until(lambda: bot.done[f"{BOT} 👎 {reply['id']}"] > 0)  # both buttons were heard of
        await bot.voted(reply["id"], "👍", OTHER_BOT)
        await bot.voted(reply["id"], "🎉")
        await bot.voted(fake.say(reply["content"], author=BERT), "👍")
        await bot.voted((await bot.asked(MENTION))["id"], "👍")  # the bot's own, but no answer
        assert bot.votes() == []

        await bot.voted(reply["id"], "👍")
        assert len(bot.votes()) == 1

    play(scene)


def test_of_a_message_without_a_known_author_the_author_is_asked(play):
    """Discord may leave message_author_id out: a forged footer in another's message still is no vote."""

    async def scene(fake, bot):
        reply = await bot.asked(MENTION + QUESTION)
        forged = fake.say(reply["content"], author=BERT)
        fake.tell_author = False
        await bot.voted(forged, "👎")
        await bot.voted(reply["id"], "👍")
        assert [v.vote for v in bot.votes()] == [1]

    play(scene)


def test_a_changed_mind_counts_last(play):
    """Both votes stand in the record, in the order in which they came, and `last` reads the later."""

    async def scene(_, bot):
        reply = await bot.asked(MENTION + QUESTION)
        for emoji in ("👍", "👎"):
            await bot.voted(reply["id"], emoji)
        votes, (decision,) = bot.votes(), bot.decisions()
        assert [v.vote for v in votes] == [1, -1]
        assert votes[0].time < votes[1].time
        assert reward(votes, decision.time, votes[1].time, RewardConfig(aggregate="last")) == 0.0

    play(scene)


def test_a_vote_counts_once_per_change_of_mind(play):
    """Taken away and given again it is the same vote; 👎 is another, and so is 👍 after that."""

    async def scene(_, bot):
        reply = await bot.asked(MENTION + QUESTION)
        for emoji in ("👍", "👍🏽", "👍🏿", "👎", "👎🏽", "👍🏻"):
            await bot.voted(reply["id"], emoji)
        assert [v.vote for v in bot.votes()] == [1, -1, 1]

    play(scene)


def test_only_who_asked_votes(play, caplog):
    """The decision was made for one person; of others, and of who they are, nothing is recorded."""

    async def scene(_, bot):
        reply = await bot.asked(MENTION + QUESTION)
        other = await bot.asked(MENTION + QUESTION, author=BERT)
        await bot.voted(reply["id"], "👎", BERT)
        await bot.voted(other["id"], "👎", ALICE)
        assert bot.votes() == []
        await bot.voted(reply["id"], "👍", ALICE)
        await bot.voted(other["id"], "👍", BERT)
        first, second = bot.decisions()
        assert [v.decision_id for v in bot.votes()] == [first.id, second.id]
        assert first.user != second.user
        assert all(len(one.user) == 32 and ALICE not in one.user and BERT not in one.user for one in (first, second))

    play(scene)
    assert "not of the person who asked" in caplog.text


def test_a_vote_outlives_a_restart(world, point, caplog):
    """A reply that an earlier process sent still says which decision it answered."""

    async def stage():
        async with FakeDiscord() as fake:
            point(fake.port)
            async with running(world, fake) as bot:
                reply = await bot.asked(MENTION + QUESTION)
            async with running(world, fake) as bot:
                await bot.voted(reply["id"], "👎")
                assert [(v.decision_id, v.vote) for v in bot.votes()] == [(bare(decision_of(reply["content"])), -1)]

    asyncio.run(stage())


def test_a_vote_for_a_decision_that_the_record_lost_is_logged(world, point, caplog, tmp_path):
    """A record that was replaced makes a vote a warning, not a failure."""

    async def stage():
        async with FakeDiscord() as fake:
            point(fake.port)
            async with running(world, fake) as bot:
                reply = await bot.asked(MENTION + QUESTION)
            lost = Home(world.place.root, f"sqlite:///{tmp_path}/another.db")
            other = World(lost, world.config)
            async with running(other, fake) as bot:
                await bot.voted(reply["id"], "👍")
                assert bot.votes() == []

    asyncio.run(stage())
    assert "a vote was not recorded: an outcome must follow its decision" in caplog.text
