"""Facts about the measuring: the file is what the product reads, hashes agree, options are checked."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks import training


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """A small warehouse that DuckDB wrote."""
    return training.write_warehouse(tmp_path_factory.mktemp("w") / "w.duckdb", 3000, d=5, k=3, days=4, seed=0)


def test_the_warehouse_reads_as_rounds_with_reward_and_cost(log):
    """In order, over the days asked for, with propensities that the actions were drawn by."""
    (batch,) = log.batches()

    assert len(batch) == 3000
    assert batch.missing == 0
    assert np.isfinite(batch.costs).all()
    assert len(np.unique(batch.times // training.DAY_S)) == 4
    assert (np.diff(batch.times) > 0).all()
    frequency, expected = np.bincount(batch.actions, minlength=3), batch.probabilities.sum(axis=0)
    error = np.sqrt((batch.probabilities * (1.0 - batch.probabilities)).sum(axis=0))
    assert (np.abs(frequency - expected) < 4.0 * error).all()


@pytest.mark.parametrize("learner", list(training.LEARNERS))
def test_every_learner_learns_the_same_from_any_parts(log, learner, tmp_path):
    """One part or four: one hash; another seed, another hash."""
    hashes = set()
    for least in (1, 10_000):
        parts = [training.spool(part, tmp_path) for part in training.parts_of(log, least)]
        arrays = training.LEARNERS[learner](training.Fold(parts), parts, log.config)
        hashes.add(training.content_hash(arrays))
        assert all(np.isfinite(array).all() for array in arrays.values())

    assert len(hashes) == 1


def test_a_small_run_prints_rows_and_a_summary(capsys):
    """With the keys that are promised."""
    training.main(["--events", "2000", "--d", "3", "--k", "2", "--workers", "1", "--days", "2", "--repeat", "1"])

    *rows, summary = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["learner"] for row in rows] == list(training.LEARNERS)
    for row in rows:
        wanted = {"learner", "workers", "events", "seconds", "events_per_s", "rss_mib", "snapshot_hash"}
        assert wanted <= row.keys()
        assert row["events"] == 2000
    assert summary["summary"] is True
    assert summary["bars"]["equal_hashes"] is True
    assert summary["bars"]["linear"] is None  # too few events to judge
    assert summary["met"] is True


@pytest.mark.parametrize(
    "options", [["--events", "9"], ["--k", "1"], ["--workers", "0"], ["--days", "0"], ["--learners", "magic"]]
)
def test_bad_options_end_with_a_usage_error(options, capsys):
    with pytest.raises(SystemExit) as caught:
        training.main(options)

    assert caught.value.code == 2
    assert "usage:" in capsys.readouterr().err
