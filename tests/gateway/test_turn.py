"""Facts about conversations over the whole way of an answer: they stay, complaints are heard, some answers judged."""

from __future__ import annotations

import asyncio
import json

from bandits.conversation import FOLLOWS, Talk
from bandits.explaining.why import explain
from bandits.record.port import rows
from bandits.rewards import activated, feedback
from bandits.settings.judge import JudgeConfig
from bandits.types import JUDGE, SIGNALS
from gateway.adapter import Ask, Piece
from gateway.testing_faults import TEXT
from tests.gateway.conftest import SCOPE, domain, world

FIRST = {"role": "user", "content": "Why is the sky blue in the evening?"}
MORE = {"role": "user", "content": "How long does it take to boil an egg?"}
ANSWER = {"role": "assistant", "content": "".join(TEXT)}


def chat(*messages, **talk):
    """What Gateway.answer takes."""
    return {"ask": Ask(tuple(messages)), "conversation": Talk("c", **talk), "user": "ann"}


def more(n):
    """So many further questions, each another one, with what was answered before."""
    return [one for i in range(n) for one in (ANSWER, {"role": "user", "content": f"{i}a {i}b {i}c {i}d"})]


def test_later_turns_stay_though_the_policy_would_play_another_and_each_has_its_own_costs():
    """Drawn once, by whichever policy served then; every turn is a decision with its own attempts."""

    async def scene():
        async with world(of=domain(floor=0.9), plays="fixed:primary") as w:
            answers = [await w.gateway.answer(w.router, **chat(FIRST, *more(i))) for i in range(8)]
            return [answer.decision for answer in answers], w

    decisions, w = asyncio.run(scene())
    assert {one.arm for one in decisions} == {decisions[0].arm}
    assert [activated(one) for one in decisions] == [True] + [False] * 7
    assert all(len(w.record.outcomes(one.id)) == 1 for one in decisions)
    assert w.router.pacer.requests == 8


def test_a_turn_whose_arm_breaks_is_served_by_another_and_the_next_is_drawn_anew_once_it_is_left_alone(tmp_path):
    """The conversation does not go down with its arm; the story of a turn names the draw."""

    async def scene():
        async with world() as w:
            first = (await w.gateway.answer(w.router, **chat(FIRST))).decision
            w.primary.fault = "server"
            served, drawn = [], []
            for i in range(1, 8):
                answer = await w.gateway.answer(w.router, **chat(FIRST, *more(i)))
                served.append(answer.served)
                drawn.append(answer.decision)
            return first, served, drawn, w

    first, served, drawn, w = asyncio.run(scene())
    assert first.arm == "primary"
    assert set(served) == {"spare"}
    stayed = [one for one in drawn if one.policy == FOLLOWS + first.id]
    assert stayed == drawn[: len(stayed)]
    assert 1 <= len(stayed) < len(drawn)
    assert activated(drawn[len(stayed)])
    assert drawn[-1].arm == "spare"
    story = explain(stayed[0], (), w.router.domain, tmp_path, {}, first.time, w.record)
    assert first.id in story.render()


def test_asking_again_is_heard_before_the_answer():
    """Of the turn before, and of the draw where that is another decision."""

    async def scene():
        async with world(of=domain(reward={"signals": {"reask": 0.25}})) as w:
            first = (await w.gateway.answer(w.router, **chat(FIRST))).decision
            await w.gateway.answer(w.router, **chat(FIRST, ANSWER, FIRST))
            await w.gateway.answer(w.router, **chat(FIRST, ANSWER, FIRST, ANSWER, MORE, regenerate=True))
            return first, w

    first, w = asyncio.run(scene())
    heard = [(o.source, o.decision_id == first.id) for o in w.outcomes if o.source in SIGNALS]
    assert heard == [("reask", True), ("regenerate", False), ("regenerate", True)]
    assert feedback(rows(w.record), SCOPE, w.router.domain, first.time + 60.0).rewards.tolist() == [0.25]


class Stern:
    """An adapter whose model knows of one capital, and finds that the sky is blue."""

    async def complete(self, model, ask):
        """A verdict in order."""
        task, data = (one["content"] for one in ask.messages)
        token = task.split('"token": "')[1].split('"')[0]
        answer = json.loads(data.split("\n")[1])["answer"]
        score = 8 if "blue" in answer else 9 if answer == "Paris." else 0
        return (Piece(json.dumps({"token": token, "score": score}), finish="stop", cost_usd=0.001),)

    async def close(self):
        """Nothing is open."""


def test_answers_are_offered_to_the_judge_of_the_domain():
    """The verdict and its cost stand beside the attempt; a turn that nobody drew is not judged."""
    judge = JudgeConfig(model="stern", provider="court", usd_per_request=0.01, usd_per_day=1.0, share=1.0)

    async def scene():
        async with world(of=domain(floor=1e-12, judge=judge)) as w:
            w.gateway.adapters["court"] = Stern()
            first = (await w.gateway.answer(w.router, **chat(FIRST))).decision
            await w.gateway.answer(w.router, **chat(FIRST, ANSWER, MORE))
            await w.gateway.judges.close()
            return first, w

    first, w = asyncio.run(scene())
    attempt, paid, verdict = w.record.outcomes(first.id)
    assert (attempt.source, verdict.quality, paid.arm, paid.cost_usd) == ("primary", 0.8, JUDGE, 0.004)
    assert len(w.outcomes) == 4
