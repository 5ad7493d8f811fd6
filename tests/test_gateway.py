"""Facts about answering: decide, ask, report; a recording invents nothing; a failure is news about its arm."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bandits.config import ArmConfig, DomainConfig
from bandits.record_memory import MemoryRecord
from bandits.router import Router
from bandits.types import Scope
from gateway.adapter import GatewayError
from gateway.answer import answer
from gateway.replay import Recording, Replay

SCOPE = Scope("acme", "main", "model_routing")
DOMAIN = DomainConfig(
    arms=tuple(ArmConfig(name=n, model=f"vendor/{n}", usd_per_request=1e-4) for n in ("a", "b")),
    budget_usd_per_request=1.0,
)
RECORDINGS = {"hello": {"vendor/a": Recording(0.25, 1e-4, "hi"), "vendor/b": Recording(0.75, 2e-4, "good day")}}


def router(record: MemoryRecord) -> Router:
    return Router(SCOPE, DOMAIN, record, np.random.default_rng(0), lambda: 100.0)


def test_an_answer_leaves_a_decision_and_its_outcome():
    """Of the arm that was drawn, with its own recorded quality and cost, and where it came from."""
    record = MemoryRecord()

    given = answer(router(record), Replay(RECORDINGS), "hello")

    recorded = RECORDINGS["hello"][f"vendor/{given.decision.arm}"]
    (outcome,) = record.outcomes(given.decision.id)
    assert given.reply.text == recorded.text
    assert (outcome.quality, outcome.cost_usd, outcome.source) == (recorded.quality, recorded.cost_usd, "replay")


def test_a_model_that_fails_earns_zero_for_its_arm_and_the_caller_hears_of_it():
    """Not silence: a dead arm must not look like an arm without news."""
    record = MemoryRecord()

    with pytest.raises(GatewayError, match="recorded prompts"):
        answer(router(record), Replay(RECORDINGS), "unknown prompt")

    decision, outcome = (row.entry for row in record.read())
    assert outcome.decision_id == decision.id
    assert (outcome.quality, outcome.source) == (0.0, "failed")


def test_a_recording_invents_nothing():
    """An unrecorded model is an error that lists those there are; a text that was not kept is said to be missing."""
    replay = Replay({"hello": {"vendor/a": Recording(0.5, 1e-4)}})

    assert "text was not kept" in replay.complete("vendor/a", "hello").text
    with pytest.raises(GatewayError, match="vendor/a for this prompt, but not 'vendor/z'"):
        replay.complete("vendor/z", "hello")


def test_a_recording_reads_back_from_json_lines(tmp_path):
    """One line a reply; characters that some take for line ends stay inside the text."""
    path = tmp_path / "r.jsonl"
    row = {"prompt": "a\u2028b", "model": "m", "quality": 0.5, "cost_usd": 1e-4, "text": "x\u2028y"}
    path.write_text(json.dumps(row, ensure_ascii=False) + "\n\n", encoding="utf-8")

    reply = Replay.read(path).complete("m", "a\u2028b")

    assert reply.text == "x\u2028y"


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
