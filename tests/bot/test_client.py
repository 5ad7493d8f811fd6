"""The bot on a Discord that breaks: each mention gets one answer, each person's vote reaches its decision."""

from __future__ import annotations

from datetime import datetime

from bandits.features import Request, Turn, context, text_context
from bandits.ids import bare
from bot.words import decision_of
from tests.bot.conftest import CODE, LONG, MENTION, PARTLY, QUESTION, replay
from tests.bot.fake_discord import ALICE, BERT, BOT, CHANNEL, DM, GUILD, OTHER_BOT, TIME
from tests.bot.test_faults import Broken


def test_a_mention_is_answered_by_the_model_that_was_drawn(play):
    """The reply has the words of the drawn arm and names arm, cost and decision; the record has all of it."""

    async def scene(fake, bot):
        reply = await bot.asked(MENTION + QUESTION)
        (decision,) = bot.decisions()
        (outcome,) = bot.record.outcomes(decision.id)
        recorded = replay().recorded(f"maker/{decision.arm}", QUESTION)

        footer = f"-# {decision.arm} · ${recorded.cost_usd:.6f} · {bot.server.ids.token(decision)}"
        assert reply["content"] == f"{recorded.text}\n{footer}"
        assert reply["message_reference"]["message_id"] == "1001"
        assert fake.reactions == [(reply["id"], "👍"), (reply["id"], "👎")]
        assert (outcome.quality, outcome.cost_usd) == (recorded.quality, recorded.cost_usd)
        assert decision.context.tobytes() == text_context(QUESTION).tobytes()

    play(scene)


def test_what_a_message_replies_to_is_the_conversation(play, world):
    """The bot's own answer without its footer, a message without the mention; one that is gone is no conversation."""
    domain = world.config.domains["model_routing"].model_copy(update={"features": "text-2"})
    world.config.__dict__["domains"] = {"model_routing": domain}

    async def scene(fake, bot):
        first = await bot.asked(MENTION + QUESTION)
        body = first["content"].rpartition("\n")[0]
        of_a_person = fake.messages[fake.say(MENTION + "Listen")]
        for said in (first, of_a_person, None):
            reference = {"message_id": "1001", "channel_id": CHANNEL, "guild_id": GUILD}
            await bot.asked(MENTION + QUESTION, type=19, message_reference=reference, referenced_message=said)

        now = datetime.fromisoformat(TIME).timestamp()
        talks = [(), (Turn("assistant", body, now),), (Turn("user", "Listen", now),), ()]
        expected = [context(Request(QUESTION, talk, now), "text-2").tobytes() for talk in talks]
        assert [decision.context.tobytes() for decision in bot.decisions()] == expected
        assert len(set(expected)) == 3

    play(scene)


def test_nobody_is_pinged(play):
    """Whatever a reply says, Discord is told to mention nobody, not even the person who asked."""

    async def scene(_, bot):
        reply = await bot.asked(MENTION + QUESTION)
        assert reply["allowed_mentions"]["parse"] == []
        assert not reply["allowed_mentions"].get("replied_user")

    play(scene)


def test_only_people_who_address_the_bot_are_answered(play):
    """A direct message needs no mention; other bots, other talk and replies that do not name the bot get nothing."""

    async def scene(fake, bot):
        silent = [
            fake.say(QUESTION),
            fake.say(MENTION + QUESTION, author=OTHER_BOT),
            fake.say("thanks!", mentions=[{"id": BOT, "username": "bot", "discriminator": "0", "avatar": None}]),
            fake.say(MENTION + QUESTION, type=6),  # "pinned a message"
        ]
        await fake.until(lambda: all(bot.done[said] for said in silent))
        assert fake.of_bot() == []

        reply = await bot.asked(QUESTION, channel=DM)
        assert bare(decision_of(reply["content"])) == bot.decisions()[0].id

    play(scene)


def test_an_empty_mention_gets_a_hint(play):
    """The bot says how to ask, with prompts that it can answer."""

    async def scene(_, bot):
        reply = await bot.asked(f"  <@!{BOT}> ")
        assert reply["content"].startswith("Write your prompt in the message that mentions me")
        assert f"- {QUESTION}" in reply["content"]
        assert bot.decisions() == []

    play(scene)


def test_a_very_long_prompt(play):
    """All that Discord lets a person write is answered; more than that is refused with a word, and nothing drawn."""

    async def scene(_, bot):
        assert 3_800 < len(LONG) < 4_000
        reply = await bot.asked(MENTION + LONG)
        assert bare(decision_of(reply["content"])) == bot.decisions()[0].id
        refused = await bot.asked(MENTION + "x" * 4_001)
        assert refused["content"] == "I can read prompts of up to 4,000 characters. Please shorten yours."
        assert len(bot.decisions()) == 1

    play(scene)


def test_a_long_reply_comes_in_parts(play):
    """Each within Discord's limit; the first answers the question, the last carries footer and buttons."""

    async def scene(fake, bot):
        last = await bot.asked(MENTION + CODE)
        parts = fake.of_bot(CHANNEL)
        others = len(parts) - 1
        assert others > 1
        assert ["message_reference" in part for part in parts] == [True] + [False] * others
        assert [decision_of(part["content"]) is not None for part in parts] == [False] * others + [True]
        assert {message for message, _ in fake.reactions} == {last["id"]}
        await bot.voted(parts[0]["id"], "👎")
        await bot.voted(last["id"], "👍")
        assert [v.vote for v in bot.votes()] == [1]

    play(scene)


def test_the_log_names_nobody_and_quotes_nothing(play, caplog):
    """Neither message contents nor user ids reach the log, whatever goes wrong."""

    async def scene(fake, bot):
        reply = await bot.asked(MENTION + QUESTION)
        await bot.voted(reply["id"], "👍", BERT)
        await bot.asked(MENTION + "Tell me a secret")
        await bot.asked(MENTION + PARTLY)
        bot._gateway.adapters = {"replay": Broken()}
        await bot.asked(MENTION + QUESTION)
        fake.delete(reply["id"])
        await bot.voted(reply["id"], "👎", BERT)

    play(scene)
    logged = [record.getMessage() for record in caplog.records]
    assert sum(record.name == "bot" for record in caplog.records) >= 6
    assert "a vote is lost" in caplog.text
    for secret in (QUESTION, "sky", "secret", PARTLY, "user", ALICE, BERT):
        assert not [text for text in logged if secret in text]
