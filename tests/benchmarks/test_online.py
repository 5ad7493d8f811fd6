"""Facts about measuring the online learner: the rows of the contract, the same seeds the same rows, bars that bite."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks import drift, latency, learn


@pytest.fixture
def folder(tmp_path):
    """A set of 200 rows whose two classes are the sign of a feature, and one of noise."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 3))
    np.savez(tmp_path / "sign.npz", X=x, y=(x[:, 0] > 0).astype(int))
    np.savez(tmp_path / "noise.npz", X=x, y=rng.integers(0, 2, 200))
    return tmp_path


def lines(capsys):
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_learning_prints_rows_and_a_summary(folder, capsys):
    """What can be learned is; what cannot stays at chance; the same seeds give the same rows, times apart."""
    outputs = []
    for _ in range(2):
        learn.main(["--data", str(folder), "--seeds", "0", "1"])
        outputs.append(lines(capsys))
    *rows, summary = outputs[0]

    assert [(r["dataset"], r["seed"], r["learner"]) for r in rows] == [
        (name, seed, learner) for name in ("noise", "sign") for seed in (0, 1) for learner in ("default", "linear")
    ]
    assert all(row["min_propensity"] >= 0.001 / 2 for row in rows)
    by = summary["by_dataset"]["default"]
    assert by["sign"] < 0.25 < 0.4 < by["noise"]
    assert summary["met"] is (summary["pv_loss"]["default"] <= learn.LOSS)
    unmeasured = [[{k: v for k, v in row.items() if k != "seconds"} for row in output] for output in outputs]
    assert unmeasured[0] == unmeasured[1]


def test_contexts_are_standardised_clipped_and_shuffled_by_the_seed(folder):
    """Mean 0, deviation 1; another seed is another order of the same rows."""
    x, y, k = learn.load(folder / "sign.npz", 0)
    other, _, _ = learn.load(folder / "sign.npz", 1)

    assert k == 2
    assert np.abs(x.mean(axis=0)).max() < 1e-2
    assert (y == (x[:, 0] > x[y == 0, 0].max())).all()
    assert not np.array_equal(x, other)
    np.testing.assert_allclose(np.sort(x[:, 0]), np.sort(other[:, 0]))


def test_a_cell_of_latency_is_measured_apart(capsys):
    """A fresh process without scipy or sklearn; the bars are looked up by learner and arms."""
    latency.main(["--d", "8", "--k", "3", "--decisions", "200", "--repeat", "1"])
    *rows, summary = lines(capsys)

    assert [(row["learner"], row["k"]) for row in rows] == [("default", 3), ("linear", 3)]
    assert all(row["heavy_modules"] == [] and 0.0 < row["p50_us"] <= row["p99_us"] for row in rows)
    slow = [{**row, "k": 4, "p50_us": 99.0, "p99_us": 99.0} for row in rows]
    assert latency.summary(slow)["met"] is False
    assert summary["met"] in (True, False)


def test_a_summary_of_drift_counts_what_its_rows_say():
    """Shares are averaged, alarms are per 10,000 decisions; one arm that never recovers breaks the bar."""
    fall = {"seed": 0, "arm": 1, "broken_share": 0.1, "recovered_after": 900}
    calm = {"seed": 0, "stationary": 20_000, "alarms": 1}
    rows = [{**row, "rewards": name} for name in ("graded", "binary") for row in (fall, calm)]

    good = drift.summary(rows)
    bad = drift.summary([*rows, {**rows[0], "recovered_after": None}])

    assert (good["met"], good["broken_share_after_100"], good["false_quarantines_per_10k"]) == (True, 0.1, 0.5)
    assert bad["met"] is False


@pytest.mark.parametrize(
    ("benchmark", "options"),
    [
        (learn, ["--data", "nowhere", "--datasets", "x"]),
        (learn, []),
        (latency, ["--k", "1"]),
        (drift, ["--seeds", "0"]),
        (drift, ["--data", "nowhere.npz"]),
    ],
)
def test_bad_options_end_with_a_usage_error(benchmark, options, capsys):
    """Exit 2 and a sentence, before anything runs."""
    with pytest.raises(SystemExit) as caught:
        benchmark.main(options)

    assert caught.value.code == 2
    assert "usage:" in capsys.readouterr().err
