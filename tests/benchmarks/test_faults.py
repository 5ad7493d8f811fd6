"""Facts about the benchmark of faults: its rows, its summary, and that it can fail."""

from __future__ import annotations

import json

import pytest

from benchmarks import faults

QUICK = ["--wire", "openai", "--first-token", "2", "--stall", "2", "--total", "5", "--requests", "60"]


def run(capsys, *more: str) -> tuple[list[dict], dict]:
    faults.main([*QUICK, *more])
    *found, summary = map(json.loads, capsys.readouterr().out.splitlines())
    return found, summary


def test_every_case_has_a_row_and_the_summary_its_figures(capsys):
    """Each fault, streaming and plain, with and without another model."""
    found, summary = run(capsys, "--dead", "2", "--faults", "refused", "cut")

    assert {(row["case"], row["mode"], row["fallback"]) for row in found} == {
        (fault, mode, is_with)
        for fault in ("refused", "cut")
        for mode in ("stream", "plain")
        for is_with in (True, False)
    }
    assert (summary["cases"], summary["ok"]) == (len(found), len(found)) == (8, 8)
    assert {row["ended"] for row in found} == {"reply", "error"}
    assert summary["breaker_opened_after"] == 5
    assert summary["probes_per_s"] <= 1.0
    assert summary["retry_rate"] <= 0.1
    assert isinstance(summary["met"], bool)


def test_it_sees_a_gateway_without_a_breaker_and_without_stand_ins(monkeypatch):
    """The negative control: then errors are seen, and the dead provider is asked all the time."""
    import asyncio

    settings = {"first_token_s": 0.2, "stall_s": 0.2, "total_s": 3.0, "backoff_s": 0.01, "breaker_failures": 10_000}
    rates = asyncio.run(faults.at_random(settings | {"stand_ins": 0}, 0.3, 40, 0))
    gone = asyncio.run(faults.dead(settings, 1.0, 0))

    assert rates["visible_error_rate"] > 0.05
    assert gone["breaker_opened_after"] > 5


@pytest.mark.parametrize("bad", [["--failing", "1.5"], ["--requests", "0"], ["--total", "1"], ["--dead", "inf"]])
def test_bad_options_are_usage_errors(bad):
    """Before anything runs."""
    with pytest.raises(SystemExit) as caught:
        faults.main([*QUICK, *bad])
    assert caught.value.code == 2
