"""Facts about the Open Bandit check, on logs of the same form whose truth is known."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks import open_bandit

K, POSITIONS, N = 6, 3, 3000
RATES = np.linspace(0.02, 0.3, K)


def write(folder, policy, probabilities, seed, rates=RATES):
    """A log of N impressions drawn by `probabilities`, (K,), at every position."""
    rng = np.random.default_rng(seed)
    items = rng.choice(K, size=N, p=probabilities)
    columns = {
        "timestamp": (np.arange(N)[::-1] * 1_000_000).astype("datetime64[us]"),  # newest first: to be put in order
        "item_id": items.astype(np.int16),
        "position": rng.integers(1, POSITIONS + 1, size=N).astype(np.int16),
        "click": (rng.random(N) < rates[items]).astype(np.int16),
        "propensity_score": probabilities[items],
        "user_feature_0": np.full(N, "x"),
    }
    pq.write_table(pa.table(columns), folder / f"obd_{policy}_toys.parquet")


@pytest.fixture
def data(tmp_path):
    """A campaign `toys`, whose Thompson log prefers the items that are clicked."""
    write(tmp_path, "random", np.full(K, 1.0 / K), 0)
    write(tmp_path, "bts", RATES / RATES.sum(), 2)  # of seeds 0 to 4, one recorded a rate just outside the interval
    return tmp_path


def run(capsys, *options):
    """Rows and summary of one run."""
    open_bandit.main(list(options))
    *rows, summary = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return rows, summary


def test_the_uniform_log_tells_what_the_other_policy_earned(data, capsys):
    """Every estimator has a row; dr's intervals hold the recorded rate; the uniform log's own rate is far off."""
    rows, summary = run(capsys, "--data", str(data), "--campaigns", "toys")

    assert [row["estimator"] for row in rows] == ["dr", "sndr", "switch", "snips", "dm", "ips"]
    assert summary == {
        "summary": True,
        "alpha": 0.05,
        "covered": {"toys": True},
        "sequence_covered": {"toys": True},
        "met": True,
    }
    best = rows[0]
    uniform = open_bandit.read(data / "obd_random_toys.parquet").clicks.mean()
    assert abs(best["value"] - best["recorded"]) < 4.0 * np.hypot(
        best["recorded_error"], (best["high"] - best["low"]) / 4
    )
    assert not best["low"] < uniform < best["high"]
    assert best["sequence"][0] < best["low"] < best["high"] < best["sequence"][1]


def test_items_that_changed_between_the_logs_are_found_out(data, capsys):
    """The negative control: the Thompson log's users click twice as often."""
    write(data, "bts", RATES / RATES.sum(), 1, rates=2.0 * RATES)
    _, summary = run(capsys, "--data", str(data), "--campaigns", "toys")

    assert summary["covered"] == {"toys": False}
    assert summary["met"] is False


def test_logs_are_put_in_order_of_time(data):
    """The sequence needs it."""
    assert (np.diff(open_bandit.read(data / "obd_bts_toys.parquet").times) == 1.0).all()


def test_a_log_that_is_not_uniform_is_refused(data):
    """Only the drawn item's propensity is recorded: of another policy the distribution is not known."""
    with pytest.raises(ValueError, match="must have propensities 1/6, but they go from"):
        open_bandit.uniform_log(open_bandit.read(data / "obd_bts_toys.parquet"), K)


@pytest.mark.parametrize("options", [[], ["--data", "nowhere"], ["--data", ".", "--seed", "-1"]])
def test_bad_options_end_with_a_usage_error(options, capsys):
    """Exit 2 and a sentence."""
    with pytest.raises(SystemExit) as caught:
        open_bandit.main(options)

    assert caught.value.code == 2
    assert "usage:" in capsys.readouterr().err
