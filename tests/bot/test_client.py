"""The bot on a Discord that breaks: each mention gets one answer, each person's vote reaches its decision."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import numpy as np

from bandits.features import Request, Turn, context, text_context, width
from bandits.home import Home
from bandits.ids import bare
from bandits.learners.cost import CostModel
from bandits.learners.linear_policy import LinearPolicy, PriceCurve
from bandits.learners.scaling import Scaler
from bandits.rewards import reward
from bandits.settings.reward import RewardConfig
from bot.words import decision_of
from gateway.adapter import Ask, Piece
from gateway.replay import Recording, Replay
from tests.bot.conftest import ARMS, CODE, LONG, MENTION, PARTLY, PRICES, QUESTION, World, fixed, replay, running
from tests.bot.fake_discord import ALICE, BERT, BOT, CHANNEL, DM, GUILD, OTHER_BOT, SILENT, TIME, FakeDiscord


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


def test_a_new_snapshot_changes_decisions(world, play):
    """What is published while the bot runs serves from then on, without a restart."""
    world.publish(fixed("small"))

    async def scene(fake, bot):
        await bot.asked(MENTION + QUESTION)
        world.publish(fixed("large"))
        await fake.until(lambda: bot.server.router.serving.version == "000002")
        await bot.asked(MENTION + QUESTION)
        assert [(d.policy, d.arm) for d in bot.decisions()] == [("000001", "small"), ("000002", "large")]

    play(scene)


def test_the_first_snapshot_is_found_too(world, play):
    """A bot that started before any night takes what the first one publishes."""

    async def scene(fake, bot):
        await bot.asked(MENTION + QUESTION)
        world.publish(fixed("large"))
        await fake.until(lambda: bot.server.router.serving.version == "000001")
        await bot.asked(MENTION + QUESTION)
        assert [d.policy for d in bot.decisions()] == ["explore", "000001"]

    play(scene)


def test_a_tampered_snapshot_is_refused_and_logged_once(world, play, tmp_path, caplog):
    """The last good one keeps serving, and a good one after it serves; the log is not flooded meanwhile."""
    world.publish(fixed("small"))

    async def scene(fake, bot):
        world.publish_tampered(fixed("large"), tmp_path / "aside")
        await fake.until(lambda: bot.server.last_error is not None)
        looks = bot.server.looks
        await fake.until(lambda: bot.server.looks >= looks + 3)
        await bot.asked(MENTION + QUESTION)
        assert [(d.policy, d.arm) for d in bot.decisions()] == [("000001", "small")]
        assert caplog.text.count("no newer snapshot is served") == 1
        assert "sha256" in caplog.text

        world.publish(fixed("large"))
        await fake.until(lambda: bot.server.router.serving.version == "000003")

    play(scene)


def test_an_expiring_snapshot_is_logged_once(world, play, caplog):
    """Its message tells the time, so it is another one at each look."""
    world.publish(fixed("small"), expires=1.0)

    async def scene(fake, bot):
        await fake.until(lambda: bot.server.looks >= 4)
        assert caplog.text.count("no newer snapshot is served") == 1

    play(scene)


def test_a_fault_in_the_keys_does_not_stop_the_looking(world, play, caplog):
    """While others may write the keys nothing is trusted; once that is mended, the snapshot serves."""
    keys = world.place.root / "keys"
    world.place.root.mkdir()

    async def scene(fake, bot):
        keys.mkdir()
        keys.chmod(0o777)
        await fake.until(lambda: bot.server.faults >= 3)
        keys.chmod(0o700)
        world.publish(fixed("large"))
        await fake.until(lambda: bot.server.router.serving.version == "000001")
        assert caplog.text.count("no newer snapshot is served") == 1

    play(scene)


def test_another_process_has_the_same_policy(world, play):
    """From one snapshot two processes give one context the same probabilities, bit for bit."""
    rng, d = np.random.default_rng(1), width("text-1")
    scaler, cost = Scaler(np.full(d, 4.0), np.ones(d)), CostModel(np.zeros((3, d + 1)), PRICES)
    curve = PriceCurve(np.array([0.0, 1e3]), np.array([3e-4, 1e-4]))
    weights = rng.normal(scale=0.01, size=(3, d + 1))
    weights[0, 0] = -1.0  # the longer a prompt, the worse the first arm
    world.publish(LinearPolicy(ARMS, "text-1", scaler, weights, cost, np.ones(3, np.bool_), PRICES, curve, 1e-3, 0.3))
    script = """
import json, sys
import numpy as np
from bandits.config import home, load_config
from bandits.features import text_context
from bandits.home import Home
from bandits.serving import Server
from bandits.types import Scope
place, asked = Home(home()), json.load(sys.stdin)
with place.open_record() as record:
    server = Server(place, load_config(), Scope("demo", "main", "model_routing"), record, np.random.default_rng(0))
policy = server.router.serving.policy
rows = [policy.probabilities(text_context(p)[None], np.array([a]), s)[0].tobytes().hex() for p, a, s in asked]
print(json.dumps([server.router.serving.version, rows]))
"""

    async def scene(_, bot):
        prompts = [QUESTION, LONG, CODE]
        for prompt in prompts:
            await bot.asked(MENTION + prompt)
        made = bot.decisions()
        asked = [(p, [a not in d.excluded for a in d.arms], d.pressure) for p, d in zip(prompts, made, strict=True)]
        other = subprocess.run(
            [sys.executable, "-c", script], input=json.dumps(asked), capture_output=True, text=True, check=True,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        )  # fmt: skip
        assert json.loads(other.stdout) == ["000001", [d.probabilities.tobytes().hex() for d in made]]
        assert len({d.probabilities.tobytes() for d in made}) > 1

    play(scene)


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
