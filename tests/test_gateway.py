"""Facts about a recording as the models: it answers what was recorded, and invents nothing."""

from __future__ import annotations

import asyncio
import json

import numpy as np
import pytest

from bandits.config import ArmConfig, DomainConfig
from bandits.record.memory import MemoryRecord
from bandits.router import Router
from bandits.types import Scope
from gateway.adapter import Ask, GatewayError
from gateway.answer import Answer, Gateway, UnansweredError
from gateway.replay import Recording, Replay

SCOPE = Scope("acme", "main", "model_routing")
DOMAIN = DomainConfig(
    arms=tuple(ArmConfig(name=n, model=f"vendor/{n}", usd_per_request=1e-4) for n in ("a", "b")),
    budget_usd_per_request=1.0,
)
RECORDINGS = {"hello": {"vendor/a": Recording(0.25, 1e-4, "hi"), "vendor/b": Recording(0.75, 2e-4, "good day")}}


def answer(record: MemoryRecord, prompt: str) -> Answer:
    async def scene():
        async with Gateway({"replay": Replay(RECORDINGS)}, clock=lambda: 101.0) as gateway:
            router = Router(SCOPE, DOMAIN, record, np.random.default_rng(0), lambda: 100.0)
            return await gateway.answer(router, Ask.of(prompt))

    return asyncio.run(scene())


def test_an_answer_leaves_a_decision_and_its_outcome():
    """Of the arm that was drawn, with its own recorded quality and cost, and where it came from."""
    record = MemoryRecord()

    given = answer(record, "hello")

    recorded = RECORDINGS["hello"][f"vendor/{given.decision.arm}"]
    (outcome,) = record.outcomes(given.decision.id)
    assert (given.reply.text, given.reply.quality) == (recorded.text, recorded.quality)
    assert (outcome.quality, outcome.cost_usd, outcome.source) == (recorded.quality, recorded.cost_usd, "replay")
    assert (outcome.time, outcome.arm, outcome.result) == (101.0, "", "stop")


def test_what_was_not_recorded_is_nobodys_failure_and_free():
    """The caller hears of it; no arm earns anything by a gap in a recording."""
    record = MemoryRecord()

    with pytest.raises(UnansweredError, match="recorded prompts") as caught:
        answer(record, "unknown prompt")

    outcomes = record.outcomes(caught.value.decision.id)
    assert [(one.quality, one.cost_usd, one.result) for one in outcomes] == [(None, 0.0, "failed:unknown_prompt")] * 2


def test_a_recording_invents_nothing():
    """An unrecorded model is an error that lists those there are; a text that was not kept is said to be missing."""
    replay = Replay({"hello": {"vendor/a": Recording(0.5, 1e-4)}})

    assert "text was not kept" in asyncio.run(replay.complete("vendor/a", Ask.of("hello")))[0].text
    with pytest.raises(GatewayError, match="vendor/a for this prompt, but not 'vendor/z'"):
        replay.recorded("vendor/z", "hello")


def test_a_recording_reads_back_from_json_lines(tmp_path):
    """One line a reply; characters that some take for line ends stay inside the text."""
    path = tmp_path / "r.jsonl"
    row = {"prompt": "a\u2028b", "model": "m", "quality": 0.5, "cost_usd": 1e-4, "text": "x\u2028y"}
    path.write_text(json.dumps(row, ensure_ascii=False) + "\n\n", encoding="utf-8")

    assert Replay.read(path).recorded("m", "a\u2028b").text == "x\u2028y"


@pytest.mark.parametrize("line", ["not json", "[1]", '{"prompt": "p", "model": "m"}', '"text"'])
def test_a_broken_recording_names_its_line(tmp_path, line):
    """The one who wrote it must find it."""
    path = tmp_path / "r.jsonl"
    path.write_text('{"prompt": "p", "model": "m", "quality": 1, "cost_usd": 0}\n' + line + "\n", encoding="utf-8")

    with pytest.raises(GatewayError, match=r"r\.jsonl, line 2"):
        Replay.read(path)


def test_a_missing_recording_is_a_gateway_error(tmp_path):
    """With its path."""
    with pytest.raises(GatewayError, match=r"none\.jsonl must be readable"):
        Replay.read(tmp_path / "none.jsonl")
