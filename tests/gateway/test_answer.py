"""Facts about answering over real HTTP with providers that break: who answers, what is recorded, what it cost."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from bandits.config import RewardConfig
from bandits.errors import UnavailableError
from bandits.rewards import cost, reward
from gateway.adapter import Ask, GatewayError
from gateway.answer import UnansweredError
from gateway.testing_faults import FAULTS, TEXT, USAGE
from tests.gateway.conftest import PRICES, QUICK, USD, arm, domain, world

ASK = Ask.of("Why is the sky blue?")
SPENT = (USAGE[0] * PRICES["input"] + USAGE[1] * PRICES["output"]) / 1e6  # USD of one whole answer


def run(scene, *args, **more):
    async def stage():
        async with world(*args, **more) as w:
            return await scene(w)

    return asyncio.run(stage())


async def asked(w, streaming: bool, **more):
    """The text that came, and the whole answer."""
    if not streaming:
        answer = await w.gateway.answer(w.router, ASK, **more)
        return answer.reply.text, answer
    async with await w.gateway.open_stream(w.router, ASK, **more) as stream:
        text = "".join([piece.text async for piece in stream])
        return text, stream.answer


@pytest.mark.parametrize("streaming", [False, True])
def test_an_answer_is_a_decision_and_its_outcome(streaming):
    """With tokens, time to the first of them, and the cost by the catalogue's prices."""

    async def scene(w):
        text, answer = await asked(w, streaming)
        (outcome,) = w.outcomes
        assert text == answer.reply.text == "".join(TEXT)
        assert (answer.served, answer.decision.arm, answer.decision.id) == ("primary", "primary", outcome.decision_id)
        assert (outcome.input_tokens, outcome.output_tokens, outcome.result) == (*USAGE, "stop")
        assert outcome.cost_usd == answer.reply.cost_usd == pytest.approx(SPENT)
        assert (outcome.arm, outcome.quality, outcome.source) == ("", None, "primary")
        assert 0.0 < outcome.first_token_s <= outcome.latency_s < 1.0

    run(scene)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("stand_ins", [0, 1])
def test_every_fault_ends_in_an_answer_or_an_error_in_time(fault, streaming, stand_ins):
    """Whoever was drawn stays drawn; each attempt is recorded with its cost; no empty success, no hang, no leak."""

    async def scene(w):
        loop = asyncio.get_running_loop()
        began, text, failure = loop.time(), "", None
        try:
            text, answer = await asked(w, streaming)
        except UnansweredError as error:
            failure, answer = error, None
        assert loop.time() - began < QUICK.total_s + 0.5
        late = streaming and fault in ("stall", "cut", "bad_json", "large", "drip")  # it had begun
        if stand_ins and not late:
            assert text == "".join(TEXT)
            assert answer.served == "spare"
        (decision,) = w.decisions
        assert decision.arm == "primary"
        assert decision.propensity == decision.probabilities[0]
        first, *rest = w.outcomes
        assert first.result.startswith("failed:")
        assert [(o.arm, o.result) for o in rest] == ([("spare", "stop")] if text == "".join(TEXT) else [])
        assert all(o.cost_usd is not None for o in w.outcomes)
        if failure is not None:
            assert failure.decision is not None
            assert f"failed:{failure.kind}" == w.outcomes[-1].result
        while w.primary.open or w.spare.open:  # a connection that leaked would stay open
            await asyncio.sleep(0.01)
        return first

    first = run(scene, fault, QUICK.model_copy(update={"stand_ins": stand_ins, "retries": 0}))
    assert first.quality == (None if fault == "no_credit" else 0.0)
