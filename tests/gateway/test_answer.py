"""Facts about answering over real HTTP with providers that break: who answers, what is recorded, what it cost."""

from __future__ import annotations

import asyncio

import pytest

from bandits.errors import UnavailableError
from bandits.rewards import cost, reward
from bandits.settings.gateway import GatewayConfig
from bandits.settings.reward import RewardConfig
from bandits.types import Outcome
from gateway.adapter import Ask, GatewayError
from gateway.answer import UnansweredError
from gateway.replay import Recording, Replay
from gateway.testing_faults import FAULTS, TEXT, USAGE
from gateway.turn import request_of
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


async def ends(fault, streaming: bool, stand_ins: int, ready: asyncio.Barrier) -> None:
    """One fault: an answer or an error in time, all of it recorded, and no connection left."""
    settings = GatewayConfig(connect_s=1.0, first_token_s=0.8, stall_s=0.5, total_s=2.0, stand_ins=stand_ins, retries=0)
    async with world(fault, settings) as w:
        await ready.wait()  # opening clients takes longer than asking
        began, text, failure = asyncio.get_running_loop().time(), "", None
        try:
            text, answer = await asked(w, streaming)
        except UnansweredError as error:
            failure = error
        assert asyncio.get_running_loop().time() - began < settings.total_s + 0.5, fault
        had_begun = streaming and fault in ("stall", "cut", "bad_json", "large")
        assert text == ("".join(TEXT) if stand_ins and not had_begun else ""), fault
        (decision,) = w.decisions
        assert (decision.arm, decision.propensity) == ("primary", decision.probabilities[0])
        (first, *rest) = w.outcomes
        assert first.failed, fault
        assert first.quality == (None if fault == "no_credit" else 0.0), fault
        assert [(one.arm, one.result, one.quality) for one in rest] == ([("spare", "stop", None)] if text else [])
        assert all(one.cost_usd is not None for one in w.outcomes)
        if failure is None:
            assert answer.served == "spare"
        else:
            assert (failure.decision.id, f"failed:{failure.kind}") == (decision.id, first.result)
        while w.primary.open or w.spare.open:  # a connection that leaked would stay open
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("stand_ins", [0, 1])
def test_every_fault_ends_in_an_answer_or_an_error_in_time(streaming, stand_ins):
    """Whoever was drawn stays drawn; each attempt is recorded with its cost; no empty success, no hang, no leak."""

    async def stage():
        ready = asyncio.Barrier(len(FAULTS))
        await asyncio.gather(*(ends(fault, streaming, stand_ins, ready) for fault in FAULTS))

    asyncio.run(stage())


def test_what_another_answered_is_never_the_dead_arms_reward():
    """It learns what it did itself; `as_served` by configuration; all that was spent is the decision's cost."""

    async def scene(w):
        await w.gateway.answer(w.router, ASK)
        (decision,) = w.decisions
        assert w.told == [("", "failed:server", 0.0), ("spare", "stop", None)]
        said = Outcome(decision.id, decision.time + 1.0, decision.scope, quality=0.9, arm="spare", source="judge")
        judged = [*w.outcomes, said]
        assert reward(judged, decision.time, decision.time, RewardConfig()) == 0.0
        assert reward(judged, decision.time, decision.time, RewardConfig(fallback="as_served")) == 0.9
        assert cost(w.outcomes) == pytest.approx(SPENT)

    run(scene, "server", QUICK.model_copy(update={"retries": 0}))


def test_a_retry_that_answers_makes_no_failure_of_the_arm():
    """The first attempt is recorded with what it cost, and says nothing of quality."""

    async def scene(w):
        faults = iter(["cut", None])
        w.primary.fault = lambda: next(faults)
        answer = await w.gateway.answer(w.router, ASK)
        assert w.told == [("", "failed:cut", None), ("", "stop", None)]
        assert w.outcomes[0].cost_usd == USD["primary"], "what a broken answer cost is not known: the usual price"
        assert [attempt.failure for attempt in answer.attempts] == ["cut", None]
        assert w.gateway.counts == {"requests": 1, "retries": 1}

    run(scene, None, QUICK.model_copy(update={"retry_share": 1.0}))


def test_without_budget_for_a_retry_another_stands_in():
    """The first requests have saved up none; what failed every time has failed."""

    async def scene(w):
        for _ in range(4):
            await w.gateway.answer(w.router, ASK)
        assert w.gateway.counts == {"requests": 4, "retries": 1, "stand_ins": 4}
        assert [result for _, result, _ in w.told].count("failed:server") == 5
        assert {quality for arm, _, quality in w.told if not arm} == {0.0}

    run(scene, "server", QUICK.model_copy(update={"retry_share": 0.3}))


def test_a_model_that_keeps_failing_is_not_drawn_until_a_probe_answers():
    """Its probability is 0 and the decision says why; the propensities of the others stay exact."""
    settings = QUICK.model_copy(update={"breaker_pause_s": 0.2, "breaker_longest_s": 0.2, "retries": 0})

    async def scene(w):
        for _ in range(5):
            await w.gateway.answer(w.router, ASK)
        assert len(w.primary.calls) == 5
        for _ in range(5):
            answer = await w.gateway.answer(w.router, ASK)
            assert answer.decision.excluded == {"primary": "its breaker is open (server)"}
            assert answer.decision.probabilities.tolist() == [0.0, 1.0]
        assert len(w.primary.calls) == 5
        assert w.gateway.states() == {("primary", "vendor/primary"): "open", ("spare", "vendor/spare"): "closed"}

        w.primary.fault = None
        while w.gateway.states()["primary", "vendor/primary"] == "open":
            await asyncio.sleep(0.01)
        assert (await w.gateway.answer(w.router, ASK)).served == "primary"
        assert w.gateway.states()["primary", "vendor/primary"] == "closed"

    run(scene, "server", settings)


def test_only_one_probe_is_under_way():
    """While it is, the model is out of reach of every other decision."""
    settings = QUICK.model_copy(update={"breaker_pause_s": 0.05, "breaker_longest_s": 0.05, "retries": 0})

    async def scene(w):
        for _ in range(5):
            await w.gateway.answer(w.router, ASK)
        while w.gateway.states()["primary", "vendor/primary"] != "half open":
            await asyncio.sleep(0.01)
        w.primary.fault = "hang_headers"
        probe = asyncio.create_task(w.gateway.answer(w.router, ASK))
        while len(w.primary.calls) < 6:
            await asyncio.sleep(0.01)
        others = await asyncio.gather(*(w.gateway.answer(w.router, ASK) for _ in range(8)))
        assert {other.decision.arm for other in others} == {"spare"}
        probe.cancel()
        await asyncio.gather(probe, return_exceptions=True)
        w.primary.fault = None
        assert (await w.gateway.answer(w.router, ASK)).served == "primary", "a probe that was broken off is given back"

    run(scene, "server", settings)


@pytest.mark.parametrize(("fault", "kind"), [("no_credit", "no_credit"), ("rate_limited", "rate_limited")])
def test_one_refusal_for_money_or_rate_is_enough(fault, kind):
    """The next one is not even asked; for want of credit the arm is not to blame."""

    async def scene(w):
        await w.gateway.answer(w.router, ASK)
        await w.gateway.answer(w.router, ASK)
        assert len(w.primary.calls) == 1
        assert w.decisions[1].excluded == {"primary": f"its breaker is open ({kind})"}
        assert w.told[0] == ("", f"failed:{kind}", None if kind == "no_credit" else 0.0)

    run(scene, fault, QUICK.model_copy(update={"retries": 0}))


def test_a_pinned_arm_has_no_stand_in():
    """Whoever names a model gets that one or an error; the decision is forced. Left alone, it is not even asked."""

    async def scene(w):
        with pytest.raises(UnansweredError) as caught:
            await w.gateway.answer(w.router, ASK, pinned="primary")
        assert (caught.value.kind, caught.value.decision.forced) == ("no_credit", True)
        with pytest.raises(GatewayError, match=r"its breaker is open \(no_credit\)") as caught:
            await w.gateway.answer(w.router, ASK, pinned="primary")
        assert caught.value.kind == "resting"
        assert len(w.decisions) == 1
        assert (await w.gateway.answer(w.router, ASK, pinned="spare")).served == "spare"

    run(scene, "no_credit")


def test_when_all_are_left_alone_it_says_so_and_asks_nobody():
    """Nothing is drawn, nothing is waited for."""

    async def scene(w):
        w.spare.fault = "no_credit"
        with pytest.raises(UnansweredError) as caught:
            await w.gateway.answer(w.router, ASK)
        assert [attempt.arm for attempt in caught.value.attempts] == ["primary", "spare"]
        with pytest.raises(UnavailableError, match=r"primary: its breaker is open \(no_credit\); spare: its"):
            await w.gateway.answer(w.router, ASK)
        assert len(w.decisions) == 1

    run(scene, "no_credit")


def test_what_cannot_take_the_prompt_is_not_drawn():
    """By its tools, its eyes and its context; the decision says why."""
    arms = (arm("primary", context_tokens=50), arm("spare", tools=True), arm("third", provider="nobody"))
    image = ({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}]},)

    async def scene(w):
        tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
        answer = await w.gateway.answer(w.router, Ask(ASK.messages, tools=(tool,)))
        unconfigured = {"third": "its provider is not configured"}
        assert answer.decision.excluded == {"primary": "it calls no tools"} | unconfigured
        answer = await w.gateway.answer(w.router, Ask.of("word " * 60))
        assert answer.decision.excluded == {"primary": "its context is too short for the prompt"} | unconfigured
        with pytest.raises(UnavailableError, match="it sees no images"):
            await w.gateway.answer(w.router, Ask(image))
        assert (await w.gateway.answer(w.router, ASK)).served == "primary"

    run(scene, of=domain(*arms, floor=1e-12))


@pytest.mark.parametrize("fault", ["hang_headers", "stall", None])
def test_whoever_goes_away_leaves_a_record_and_no_connection(fault):
    """The arm is not to blame; what came was paid for."""

    async def scene(w):
        if fault == "hang_headers":
            going = asyncio.create_task(w.gateway.answer(w.router, ASK))
            while not w.primary.calls:
                await asyncio.sleep(0.01)
            going.cancel()
            with pytest.raises(asyncio.CancelledError):
                await going
        else:
            stream = await w.gateway.open_stream(w.router, ASK)
            await stream.aclose()
        await w.gateway.close()
        (outcome,) = w.outcomes
        assert (outcome.result, outcome.quality, outcome.cost_usd) == ("failed:cancelled", None, USD["primary"])
        while w.primary.open:
            await asyncio.sleep(0.01)

    run(scene, fault)


def test_two_that_hang_end_at_the_deadline():
    """Of what is left, each leaves half to whoever comes after."""

    async def scene(w):
        w.spare.fault = "hang_headers"
        began = asyncio.get_running_loop().time()
        with pytest.raises(UnansweredError) as caught:
            await w.gateway.answer(w.router, ASK)
        assert asyncio.get_running_loop().time() - began == pytest.approx(0.4, abs=0.2)
        first, second = caught.value.attempts
        assert (first.failure, second.failure) == ("total_timeout", "total_timeout")
        assert first.latency_s == pytest.approx(second.latency_s, rel=0.5)

    run(scene, "hang_headers", QUICK.model_copy(update={"total_s": 0.4}))


class Buggy:
    """An adapter with a bug, whose error quotes the prompt."""

    async def complete(self, model, ask):
        raise ZeroDivisionError(ask.prompt)

    async def stream(self, model, ask):
        raise ZeroDivisionError(ask.prompt)
        yield

    async def close(self):
        """Nothing to let go of."""


@pytest.mark.parametrize("streaming", [False, True])
def test_a_bug_in_an_adapter_costs_no_answer(streaming, caplog):
    """Another stands in; the log says where it broke, and quotes nothing."""

    async def scene(w):
        w.gateway.adapters = {**w.gateway.adapters, "primary": Buggy()}
        _, answer = await asked(w, streaming)
        assert answer.served == "spare"
        assert w.told[0] == ("", "failed:malformed", 0.0)

    run(scene, None, QUICK.model_copy(update={"retries": 0}))
    assert "ZeroDivisionError" in caplog.text
    assert "sky" not in caplog.text


@pytest.mark.parametrize("streaming", [False, True])
def test_a_success_without_a_word_is_a_failure_whoever_calls_it_one(streaming):
    """Also where an adapter lets it through: white space is no answer; what it cost counts."""
    blank = Replay({ASK.prompt: {"vendor/primary": Recording(0.9, 1e-4, " \n")}})

    async def scene(w):
        w.gateway.adapters = {**w.gateway.adapters, "primary": blank}
        text, answer = await asked(w, streaming)
        assert (answer.served, answer.reply.text) == ("spare", "".join(TEXT))
        assert text == "".join(TEXT)
        assert (w.told[0], w.outcomes[0].cost_usd) == (("", "failed:empty", 0.0), 1e-4)

    run(scene)


def test_what_was_said_before_is_the_conversation():
    """Features see what the models see: the last message of the user, and the turns before it."""
    said = [("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello!"), ("user", "Why is the sky blue?")]
    request = request_of(Ask(tuple({"role": role, "content": text} for role, text in said)))

    assert request.text == "Why is the sky blue?"
    assert [(turn.role, turn.text) for turn in request.conversation] == [("user", "Hi"), ("assistant", "Hello!")]
