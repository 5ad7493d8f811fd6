"""Facts about the measuring: hindsight is what enumeration says, options are checked, a small run adds up."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest

from benchmarks import publish, routing
from benchmarks.days import hindsight, value
from benchmarks.outcome_table import DataError, Day, load_table


def day(n: int, seed: int, k: int = 3) -> Day:
    rng = np.random.default_rng(seed)
    cost = np.exp(rng.normal(size=(n, k)) + np.array([0.0, 2.0, 4.0])[:k] - 9.0)
    x = rng.normal(size=(n, 4)).astype(np.float32)
    quality = np.clip(rng.random((n, k)) * 0.2 + 0.5 + 0.1 * np.arange(k) + 0.1 * x[:, :k], 0.0, 1.0)
    return Day(tuple(f"{seed}-{i}" for i in range(n)), x, quality, cost)


@pytest.mark.parametrize("budget", [1e-4, 5e-4, 2e-3, 1.0])
def test_the_oracle_is_the_best_assignment_of_arms_at_its_own_cost(budget):
    """By enumeration of all 3^7 assignments: none costs as little and is worth more."""
    d = day(7, 1)
    oracle = hindsight(d, budget)["oracle"]
    reward, cost = value(d, oracle)
    best = -np.inf
    for arms in itertools.product(range(3), repeat=7):
        chosen = np.arange(7), np.array(arms)
        if d.cost[chosen].mean() <= cost * (1 + 1e-12):
            best = max(best, d.quality[chosen].mean())

    assert cost <= budget or cost == pytest.approx(d.cost.min(axis=1).mean())
    assert reward == pytest.approx(best)


def test_the_mix_is_never_worth_less_than_the_fixed_arm_nor_more_than_the_oracle():
    """At any budget that all three can meet."""
    d = day(200, 2)
    for budget in np.geomspace(d.cost.mean(axis=0).min() * 1.01, d.cost.mean(axis=0).max(), 9):
        simple = {name: value(d, p)[0] for name, p in hindsight(d, float(budget)).items()}

        assert simple["best_fixed"] <= simple["mix"] + 1e-12
        assert simple["mix"] <= simple["oracle"] + 1e-9


def _npz(path, first: Day, second: Day) -> str:
    np.savez(
        path,
        val_x=first.contexts,
        val_r=first.quality,
        val_c=first.cost,
        test_x=second.contexts,
        test_r=second.quality,
        test_c=second.cost,
    )
    return str(path)


def test_a_small_run_of_routing_prints_rows_and_a_summary(tmp_path, capsys):
    """Every policy at every budget, the same rows for the same seeds, and a summary that repeats them."""
    source = _npz(tmp_path / "small.npz", day(400, 3), day(300, 4))
    command = ["--data", source, "--budgets", "1e-3", "--seeds", "2", "--workers", "1"]

    outputs = []
    for _ in range(2):
        routing.main(command)
        outputs.append([json.loads(line) for line in capsys.readouterr().out.splitlines()])

    assert outputs[0] == outputs[1]
    *rows, summary = outputs[0]
    by = {row["policy"]: row for row in rows}
    assert list(by) == ["pilotage", "ungated", "best_fixed", "mix", "random", "oracle"]
    assert sum(by["pilotage"]["chosen"].values()) == 2
    assert sum(by["pilotage"]["share"].values()) == pytest.approx(1.0, abs=1e-4)
    assert by["pilotage"]["reward"] <= by["oracle"]["reward"]
    assert summary["summary"] is True
    assert summary["budgets"]["0.001"]["reward"] == by["pilotage"]["reward"]
    assert summary["met"] in (True, False)


@pytest.mark.parametrize(
    "options",
    [
        ["--data", "none.npz"],
        ["--budgets", "minus"],
        ["--seeds", "0"],
        ["--arms", "gpt-9", "gpt-10"],
        ["--budgets", "-1"],
    ],
)
def test_bad_options_end_with_a_usage_error(tmp_path, options, capsys):
    """Exit 2 and a sentence, before anything runs."""
    source = _npz(tmp_path / "small.npz", day(40, 3), day(30, 4))

    with pytest.raises(SystemExit) as caught:
        routing.main([*(["--data", source] if "--data" not in options else []), *options])

    assert caught.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_a_table_that_is_none_says_what_is_missing(tmp_path):
    """A folder without the two files, a file without the six arrays."""
    np.savez(tmp_path / "x.npz", val_x=np.zeros((2, 2)))

    with pytest.raises(DataError, match=r"x\.npz must be an \.npz with"):
        load_table(str(tmp_path / "x.npz"), 0)
    with pytest.raises(DataError, match=r"must hold prompts\.parquet"):
        load_table(str(tmp_path), 0)


def test_rows_of_any_other_benchmark_are_published_as_they_came():
    """A column a key, four digits a number."""
    rows = [{"policy": "mix", "chi2_p": 0.123456, "n": 7}, {"policy": "fixed", "chi2_p": 1e-20, "n": 8}]

    assert publish.plain_table(rows).splitlines() == [
        "| policy | chi2_p | n |",
        "|---|---|---|",
        "| mix | 0.1235 | 7 |",
        "| fixed | 1e-20 | 8 |",
    ]


def test_publishing_replaces_one_block_and_nothing_else():
    """And refuses a block that the page does not have."""
    page = "a\n<!-- x -->\nold\n<!-- end -->\nb\n<!-- y -->\nkeep\n<!-- end -->\n"

    new = publish.replace(page, "x", "| new |")

    assert new == "a\n<!-- x -->\n\n| new |\n\n<!-- end -->\nb\n<!-- y -->\nkeep\n<!-- end -->\n"
    assert publish.replace(new, "x", "| new |") == new
    with pytest.raises(ValueError, match="has none"):
        publish.replace(page, "z", "")
