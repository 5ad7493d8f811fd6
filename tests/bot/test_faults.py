"""The bot on a Discord, a record and models that break: nothing is lost, nothing is said twice."""

from __future__ import annotations

import asyncio

from bot.words import decision_of
from gateway.adapter import Ask, Piece
from gateway.replay import Recording, Replay
from tests.bot.conftest import ARMS, LONG, MENTION, PARTLY, QUESTION, fixed, running
from tests.bot.fake_discord import SILENT, FakeDiscord


def test_a_gateway_that_drops_loses_and_doubles_nothing(play):
    """Five drops with mentions before, in and after each gap, and all events delivered again: one answer each."""

    async def scene(fake, bot):
        asked = []
        for drop in range(1, 6):
            asked.append(fake.say(MENTION + QUESTION))
            fake.drop()
            asked.append(fake.say(MENTION + QUESTION))
            await fake.until(lambda drop=drop: fake.resumed == drop)
            asked.append(fake.say(MENTION + QUESTION))
        await fake.until(lambda: all(bot.done[said] for said in asked))
        await fake.until(lambda: len(fake.reactions) == 2 * len(asked))

        replied = [message["message_reference"]["message_id"] for message in fake.of_bot()]
        assert sorted(replied) == sorted(asked)
        assert len(bot.decisions()) == len(asked)
        assert fake.identified == 1

    play(scene)


def test_what_a_lost_session_missed_is_read_back(play, caplog):
    """Discord delivers nothing of the gap to a new session; the bot answers it all the same, and old talk not again."""

    async def scene(fake, bot):
        before = fake.say(MENTION + QUESTION)
        await fake.until(lambda: bot.done[before] > 0)
        fake.drop()
        fake.forget_session()
        fake.say("who can hear me?")
        missed = fake.say(MENTION + QUESTION)
        fake.say(MENTION + QUESTION, channel=SILENT)
        await fake.until(lambda: bot.done["ready"] == 2)
        after = fake.say(MENTION + QUESTION)
        await fake.until(lambda: bot.done[after] > 0)

        replied = [message["message_reference"]["message_id"] for message in fake.of_bot()]
        assert replied == [before, missed, after]
        assert fake.identified == 2

    play(scene)
    assert "what was missed in a channel could not be read: Discord answered 403 (code 50001)" in caplog.text


def test_a_new_bot_does_not_answer_old_messages(world, point):
    """What was said before it ever connected is history."""

    async def stage():
        async with FakeDiscord() as fake:
            point(fake.port)
            fake.say(MENTION + QUESTION)
            async with running(world, fake) as bot:
                fake.drop()
                fake.forget_session()
                await fake.until(lambda: bot.done["ready"] == 2)
                assert fake.of_bot() == []

    asyncio.run(stage())


def test_a_reply_that_the_network_swallowed_stands_there_once(play):
    """Discord took the message but its answer was lost: it is sent again, and Discord knows it by its nonce."""

    async def scene(fake, bot):
        fake.lose_replies = 2
        reply = await bot.asked(MENTION + QUESTION)
        assert fake.posts == 3
        assert [message["id"] for message in fake.of_bot()] == [reply["id"]]
        assert len(fake.reactions) == 2

    play(scene)


def test_a_refused_reply_does_not_hurt_the_next(play, caplog):
    """Where the bot may not write, its log says so; elsewhere it goes on."""

    async def scene(fake, bot):
        fake.refuse = True
        said = fake.say(MENTION + QUESTION)
        await fake.until(lambda: bot.done[said] > 0)
        fake.refuse = False
        assert decision_of((await bot.asked(MENTION + QUESTION))["content"])

    play(scene)
    assert "could not be delivered: Discord answered 403 (code 50013)" in caplog.text


def test_a_prompt_that_is_not_recorded_gets_a_word(play):
    """The reply says why and what can be asked; nothing is drawn, since no arm is to blame."""

    async def scene(_, bot):
        reply = await bot.asked(MENTION + "Tell me a secret")
        assert "no answer to that" in reply["content"]
        assert f"\n- {QUESTION}\n" in reply["content"]
        assert LONG not in reply["content"]
        assert bot.decisions() == []

    play(scene)


def test_models_that_fail_get_a_word_and_the_one_drawn_a_zero(play):
    """The person learns that they failed; the record has the failure of the arm, and who was asked instead."""

    async def scene(fake, bot):
        reply = await bot.asked(MENTION + QUESTION)
        (decision,) = bot.decisions()
        told = [(one.arm, one.result, one.quality) for one in bot.record.outcomes(decision.id)]
        assert reply["content"].startswith("The model that was chosen did not answer.")
        assert told[0] == ("", "failed:malformed", 0.0)
        assert {arm for arm, *_ in told[1:]} == set(ARMS) - {decision.arm}
        assert {(result, quality) for _, result, quality in told[1:]} == {("failed:malformed", None)}
        assert fake.reactions == []

    play(scene, adapters={"replay": Broken()})


def test_what_a_recording_lacks_says_nothing_of_an_arm(play):
    """Nobody answers, and nobody is to blame."""

    async def scene(_, bot):
        reply = await bot.asked(MENTION + PARTLY)
        assert reply["content"].startswith("The model that was chosen did not answer.")
        outcomes = bot.record.outcomes(bot.decisions()[0].id)
        assert {(one.result, one.quality, one.cost_usd) for one in outcomes} == {("failed:unknown_prompt", None, 0.0)}

    play(scene)


class Broken(Replay):
    """An adapter with a bug, whose error quotes the prompt; `sound` models are as recorded."""

    def __init__(self, *sound: str) -> None:
        super().__init__({QUESTION: {model: Recording(0.5, 1e-4, f"{model} knows") for model in sound}})
        self.sound = sound

    async def complete(self, model: str, ask: Ask) -> tuple[Piece, ...]:
        if model not in self.sound:
            raise RuntimeError(f"{model} choked on {ask.prompt}")
        return await super().complete(model, ask)


def test_a_bug_in_an_adapter_gets_a_word(play, caplog):
    """Nobody is left waiting, nobody sees a traceback; the log says where it broke."""

    async def scene(_, bot):
        reply = await bot.asked(MENTION + QUESTION)
        assert reply["content"].startswith("The model that was chosen did not answer")

    play(scene, adapters={"replay": Broken()})
    assert "the adapter of replay raised RuntimeError" in caplog.text
    assert "in complete" in caplog.text


def test_where_another_stands_in_the_footer_says_so(play, world):
    """Who answered, and for whom; a vote still finds the decision."""
    world.publish(fixed("small"))

    async def scene(_, bot):
        reply = await bot.asked(MENTION + QUESTION)
        (decision,) = bot.decisions()
        assert decision.arm == "small"
        assert reply["content"].startswith("maker/large knows\n-# large for small · $")
        await bot.voted(reply["id"], "👎")
        assert [vote.decision_id for vote in bot.votes()] == [decision.id]
        told = [(one.arm, one.result, one.quality) for one in bot.record.outcomes(decision.id)]
        assert ("", "failed:malformed", 0.0) in told
        assert ("large", "stop", 0.5) in told

    play(scene, adapters={"replay": Broken("maker/large")})
