"""Facts about the benchmark of features: its edits are small and seeded, flips are counted, bars can be missed."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandits.features import GROUPS, names, without
from bandits.learners.baselines import ContextFree
from benchmarks import features
from benchmarks.edits import EDITS, edited
from benchmarks.outcome_table import DataError, load_table

ASKED = ("Why is the sky blue?", "How many cans did she buy, and what did they cost?", "Fix `def half(x): return x`.")


def folder(path, n: int, seed: int = 0) -> str:
    """A data set of n prompts and two models: the dear one is needed where code is asked about."""
    rng = np.random.default_rng(seed)
    ids = [f"p{i}" for i in range(n)]
    kinds = rng.integers(len(ASKED), size=n)
    prompts = [f"{ASKED[kind]} It is case number {i} of ours." for i, kind in enumerate(kinds)]
    quality = np.stack([np.where(kinds == 2, 0.1, 0.9), np.full(n, 0.9)], axis=1)
    cost = np.array([1e-4, 1e-3]) * np.exp(rng.normal(size=(n, 2)) * 0.1)
    path.mkdir()
    pq.write_table(pa.table({"prompt_id": ids, "prompt": prompts}), path / "prompts.parquet")
    pq.write_table(
        pa.table(
            {
                "prompt_id": [one for one in ids for _ in range(2)],
                "model": ["small", "large"] * n,
                "quality": quality.ravel(),
                "cost_usd": cost.ravel(),
            }
        ),
        path / "outcomes.parquet",
    )
    return str(path)


@given(st.text(max_size=300), st.sampled_from(list(EDITS)))
def test_an_edit_is_the_same_each_time_and_keeps_what_is_not_its_own(text, kind):
    """Case keeps everything but case, whitespace everything but blanks, typos nearly all letters."""
    found = edited(text, kind)

    assert found == edited(text, kind)
    if kind == "case":
        assert found in (text.lower(), text.upper(), text.title())
    if kind == "whitespace":
        assert found.split() == text.split()
    if kind == "typos":
        assert abs(len(found) - len(text)) <= max(1, len(text) // 100)


def test_typos_come_one_in_a_hundred_letters():
    """A short prompt has one; none where no letter follows another."""
    text = "the quick brown fox jumps over the lazy dog " * 20

    assert edited("hello there", "typos") != "hello there"
    assert edited("1 + 2", "typos") == "1 + 2"
    assert 0 < sum(one != other for one, other in zip(edited(text, "typos").split(), text.split(), strict=True)) <= 8


def test_groups_that_the_data_cannot_speak_of_are_found(tmp_path):
    """Prompts alone say nothing of conversation, time and asker; the schema decides the width."""
    table = load_table(folder(tmp_path / "data", 40), 0, None, "text-2")

    assert set(features.constant_groups(table)) >= {"conversation", "time", "asker"}
    assert not {"surface", "code", "questions", "words"} & set(features.constant_groups(table))
    assert table.first.contexts.shape == (20, len(names("text-2")))
    assert sorted(table.first.texts + table.second.texts)[0].startswith("Fix")
    assert (
        load_table(str(tmp_path / "data"), 0, ["small", "large"]).second.texts
        == load_table(str(tmp_path / "data"), 0).second.texts
    )
    with pytest.raises(DataError):
        load_table(str(tmp_path), 0, None, "text-2")


def test_a_choice_is_the_likeliest_arm_that_can_be_paid():
    """The dear arm is out of reach at a small budget."""
    prices = np.array([1e-4, 1e-2])
    policy = ContextFree("fixed", ("a", "b"), "vector-1", np.array([0.1, 0.9]), prices, 1e-1, 0.02)
    contexts = np.zeros((3, 1), np.float32)

    assert features.choices(policy, contexts, 0.02, 1e-1).tolist() == [1, 1, 1]
    assert features.choices(policy, contexts, 0.02, 1e-4).tolist() == [0, 0, 0]


def _cells(candidate: float, flip: float, spend: float = 0.9) -> list[features.Cell]:
    return [features.Cell(candidate, candidate + extra, spend, dict.fromkeys(EDITS, flip)) for extra in (0.0, 0.01)]


@pytest.mark.parametrize(
    ("whole", "first", "met"),
    [
        (_cells(0.8, 0.05), _cells(0.8, 0.2), True),
        (_cells(0.8, 0.051), _cells(0.8, 0.2), False),  # flips too often
        (_cells(0.8, 0.0), _cells(0.81, 0.2), False),  # earns less than text-1
        (_cells(0.8, 0.0, 1.06), _cells(0.7, 0.2), False),  # spends too much
    ],
)
def test_each_bar_can_be_missed(whole, first, met):
    """Flips, reward beside text-1, spend."""
    rows = [features.row("text-2", 1e-3, whole, whole), features.row("text-1", 1e-3, first, whole)]
    told = features.verdict(rows)

    assert told["met"] is met
    assert told["schemas"]["text-1"]["flip_rate"] == pytest.approx(0.2)
    assert told["text_1_over_text_2"] == pytest.approx(rows[1]["over_text_2"])


@pytest.mark.parametrize("options", [["--data", "none"], ["--seeds", "1"], ["--budgets", "-1"], ["--budgets", "x"]])
def test_bad_options_end_with_a_usage_error(tmp_path, options, capsys):
    """Exit 2 and a sentence, before anything runs."""
    source = folder(tmp_path / "data", 40)

    with pytest.raises(SystemExit) as caught:
        features.main([*(["--data", source] if "--data" not in options else []), *options])

    assert caught.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_vectors_have_no_groups(tmp_path, capsys):
    """A file of contexts is refused: there is nothing to edit."""
    z = {f"{part}_{name}": np.ones((4, 2)) for part in ("val", "test") for name in "xrc"}
    np.savez(tmp_path / "x.npz", **z)

    with pytest.raises(SystemExit):
        features.main(["--data", str(tmp_path / "x.npz"), "--budgets", "1"])
    assert "must hold prompts" in capsys.readouterr().err


@pytest.mark.slow
def test_a_small_run_prints_a_row_for_each_schema(tmp_path, capsys):
    """Twice the same; text-2 whole comes first, case and blanks flip nothing of it."""
    command = ["--data", folder(tmp_path / "data", 900), "--budgets", "5e-4", "--seeds", "2", "--workers", "1"]

    outputs = []
    for _ in range(2):
        features.main(command)
        outputs.append([json.loads(line) for line in capsys.readouterr().out.splitlines()])

    assert outputs[0] == outputs[1]
    *rows, summary = outputs[0]
    varying = [without(group) for group in GROUPS if group not in summary["constant"]]
    assert [row["schema"] for row in rows] == ["text-2", "text-1", *varying]
    assert (rows[0]["flip_case"], rows[0]["flip_whitespace"], rows[0]["over_text_2"]) == (0.0, 0.0, 0.0)
    assert rows[0]["candidate"] > 0.85  # it found out which prompts need the dear model
    assert summary["schemas"]["text-2"]["candidate"] == rows[0]["candidate"]
    assert summary["met"] in (True, False)
