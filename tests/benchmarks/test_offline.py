"""Facts about the benchmark of learning from logs: what it prints, what it hides from the learners, when it is met."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks import offline

ROW = {"dataset", "seed", "method", "error", "seconds"}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two small sets of three classes that a line can tell apart; class names are not 0, 1, 2."""
    monkeypatch.setattr(offline, "WAVES", 24)
    for name, seed in (("easy", 0), ("other", 1)):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(260, 3))
        np.savez(tmp_path / f"{name}.npz", X=x, y=10 + 5 * x.argmax(axis=1))
    return tmp_path


def run(folder, capsys, *options):
    offline.main(["--data", str(folder), *options])
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_rows_and_summary(folder, capsys):
    """One row a set, seed and method; the same numbers again; no bar for sets that it does not speak of."""
    options = ("--datasets", "easy", "other", "--seeds", "3", "--max-n", "200")
    *rows, summary = run(folder, capsys, *options)
    again = run(folder, capsys, *options)

    assert [(row["dataset"], row["method"]) for row in rows] == [
        (name, method) for name in ("easy", "other") for method in (*offline.METHODS, "chosen")
    ]
    for name in ("easy", "other"):
        errors = {row["method"]: row["error"] for row in rows if row["dataset"] == name}
        (learner,) = (row["learner"] for row in rows if (row["dataset"], row["method"]) == (name, "chosen"))
        assert learner == "direct_method" or errors["chosen"] == errors[learner]  # its direct method has a chosen link
    assert all(row.keys() >= ROW and row["seed"] == 3 and 0.0 <= row["error"] < 0.5 for row in rows)
    assert summary["summary"] is True
    assert summary["error"].keys() == summary["by_set"]["easy"].keys() == {*offline.METHODS, "chosen"}
    assert (summary["bars"], summary["met"]) == ({"doubly_robust": None, "offset_tree": None}, None)
    assert again[-1] == summary
    assert [row | {"seconds": 0} for row in again[:-1]] == [row | {"seconds": 0} for row in rows]


def test_the_log_shows_the_drawn_arm_s_reward_and_no_class(folder):
    """A class that was not drawn could have been any other; one that was drawn could not (the negative control)."""
    x, y, k = offline.load(folder / "easy.npz", 0, 200)
    first = offline.task("easy", x, y, k, 0)
    n = len(first.events.actions)
    missed = np.flatnonzero(first.events.targets == 0.0)
    hidden = y.copy()
    hidden[missed] = 3 - hidden[missed] - first.events.actions[missed]  # the third class, neither true nor drawn
    hidden[n:] = 0
    shown = y.copy()
    shown[np.flatnonzero(first.events.targets == 1.0)[0]] += 1

    def same(classes):
        events = offline.task("easy", x, classes % k, k, 0).events
        return all(
            (getattr(events, f) == getattr(first.events, f)).all() for f in ("phi", "actions", "targets", "folds")
        )

    assert (k, n, len(first.classes)) == (3, 120, 80)
    assert (hidden != y).sum() > 50
    assert same(hidden)
    assert not same(shown)


def test_a_set_is_standardised_clipped_and_cut(folder):
    """Like the peers' runs: whole-set mean and deviation, ±5, a seeded shuffle, at most --max-n rows."""
    x, y, k = offline.load(folder / "easy.npz", 0, 100)
    whole, _, _ = offline.load(folder / "easy.npz", 0, 10_000)
    other, _, _ = offline.load(folder / "easy.npz", 1, 100)

    assert (x.shape, y.shape, k) == ((100, 3), (100,), 3)
    assert set(y.tolist()) == {0, 1, 2}
    assert len(whole) == 260
    assert np.abs(whole.mean(axis=0)).max() < 1e-6
    assert whole.std(axis=0) == pytest.approx(np.ones(3), abs=1e-3)
    assert (whole[:100] == x).all()
    assert not (x == other).all()


@pytest.mark.parametrize(
    "options",
    [
        ["--datasets", "absent"],
        ["--datasets", "bad"],
        ["--datasets", "ragged"],
        ["--datasets", "easy", "--max-n", "9"],
        ["--datasets", "easy", "--seeds", "-1"],
        ["--datasets", "easy", "--seeds", "x"],
        ["--datasets"],
    ],
)
def test_bad_options_and_files_end_with_a_usage_error(folder, options, capsys):
    """Exit 2 and a sentence."""
    np.savez(folder / "bad.npz", X=np.zeros((20, 2)))
    np.savez(folder / "ragged.npz", X=np.zeros((20, 2)), y=np.zeros(19))

    with pytest.raises(SystemExit) as caught:
        offline.main(["--data", str(folder), *options])

    assert caught.value.code == 2
    assert "usage:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("robust", "tree", "met"), [(0.2, 0.3, True), (0.23, 0.3, False), (0.2, 0.34, False), (0.225, 0.33, True)]
)
def test_each_bar_is_missed_alone(robust, tree, met):
    """Sets weigh alike; five seeds of all seven sets are what the bars speak of."""
    errors = {"direct_method": 0.9, "doubly_robust": robust, "offset_tree": tree}
    rows = [
        {"dataset": name, "seed": seed, "method": method, "error": error}
        for name in offline.SETS
        for seed in range(5)
        for method, error in errors.items()
    ]

    found = offline.summarise(rows, range(5))

    assert found["error"] == errors
    assert found["bars"] == {"doubly_robust": robust <= 0.225, "offset_tree": tree <= 0.33}
    assert found["met"] is met
    assert offline.summarise(rows, range(4))["met"] is None
    lopsided = [*rows, *({**row, "error": 1.0} for row in rows if row["dataset"] == "dna")]
    assert offline.summarise(lopsided, range(5))["error"]["doubly_robust"] == round(
        (6 * robust + (robust + 1) / 2) / 7, 4
    )
