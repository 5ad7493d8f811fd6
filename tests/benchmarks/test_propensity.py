"""Facts about the measuring of propensities: the product passes, and each way of lying is caught."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace

import duckdb
import numpy as np
import pytest

from bandits.home import Home
from bandits.policy import Draw, draw
from bandits.record.memory import MemoryRecord
from bandits.record.port import rows
from benchmarks import propensity
from benchmarks.propensity import audit, bits, chi_square, decide, domain, policies, recomputed, stages

RNG = np.random.default_rng
LOGGED = RNG(0).dirichlet(np.ones(4), size=20)


def test_a_small_run_prints_rows_and_a_summary(capsys):
    """The keys of the contract, the same rows for the same seed, all bars met."""
    outputs = []
    for _ in range(2):
        propensity.main(["--draws", "8000", "--decisions", "12"])
        outputs.append([json.loads(line) for line in capsys.readouterr().out.splitlines()])

    assert outputs[0] == outputs[1]
    *rows, summary = outputs[0]
    assert [row["policy"] for row in rows] == ["explore", "mix", "fixed", "linear", "online"]
    assert all(row.keys() == {"policy", "chi2_p", "max_sum_error", "max_z"} for row in rows)
    assert summary == {"summary": True, "draws": 8000, "ok": True, "path_equal": True, "met": True}


@pytest.mark.parametrize(
    "options", [["--draws", "0"], ["--draws", "many"], ["--decisions", "4"], ["--seed", "-1"], ["--policies", "none"]]
)
def test_bad_options_end_with_a_usage_error(options, capsys):
    """Exit 2 and a sentence, before anything runs."""
    with pytest.raises(SystemExit) as caught:
        propensity.main(options)

    assert caught.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_an_honest_draw_passes():
    """The product's draw, from rows that differ."""
    assert audit("honest", LOGGED, 20_000, RNG(1)).ok


def test_a_draw_from_another_distribution_than_the_logged_is_caught():
    """It reports the logged row's own probability, so only what came can tell."""

    def sharper(row, rng):
        drawn = draw(row**1.2 / (row**1.2).sum(), rng)
        return Draw(drawn.action, float(row[drawn.action]))

    found = audit("sharper", LOGGED, 20_000, RNG(1), sharper)

    assert found.chi2_p < 1e-6
    assert not found.ok


def test_a_propensity_other_than_the_logged_probability_is_caught():
    """It draws honestly, so only the inverse weights can tell."""

    def flattering(row, rng):
        drawn = draw(row, rng)
        return Draw(drawn.action, 0.9 * drawn.propensity)

    found = audit("flattering", LOGGED, 20_000, RNG(1), flattering)

    assert found.chi2_p > 1e-6
    assert found.max_z > 4.0
    assert not found.ok


def test_a_draw_of_an_arm_that_was_not_allowed_is_impossible():
    """One such draw among thousands is enough."""
    logged = np.tile([0.5, 0.5, 0.0], (10, 1))
    first = iter([Draw(2, 0.5)])

    found = audit("foul", logged, 5_000, RNG(1), lambda row, rng: next(first, None) or draw(row, rng))

    assert found.chi2_p == 0.0


def test_rows_that_do_not_sum_to_one_are_caught():
    """By more than a billionth."""
    logged = LOGGED.copy()
    logged[3, 0] += 1e-8

    found = audit("leaking", logged, 100, RNG(1), lambda row, rng: draw(row / row.sum(), rng))

    assert found.max_sum_error == pytest.approx(1e-8)
    assert not found.ok


def test_the_chi_square_rejects_honest_draws_as_rarely_as_it_says():
    """Over 2,000 replications with arms of a draw in 25: pooled, a p below 1e-3 comes at most five times as often."""
    logged = np.tile([0.0004, 0.0004, 0.0992, 0.9], (5, 1))
    rng = RNG(5)

    found = np.array([chi_square(rng.multinomial(100, logged), 100 * logged) for _ in range(2_000)])

    assert (found < 1e-3).mean() < 5e-3
    assert 0.05 < (found < 0.1).mean() < 0.15
    assert 0.45 < found.mean() < 0.55


@pytest.fixture(scope="module")
def walked(tmp_path_factory):
    """A few decisions of each policy, in a record with its snapshots."""
    home, record, config = Home(tmp_path_factory.mktemp("home")), MemoryRecord(), domain()
    given = list(decide(home, record, policies(config, RNG(0)), config, 40, RNG(1)))
    return home, record, config, given


def test_the_whole_path_keeps_every_bit_under_varied_masks_and_pressures(walked):
    """And the walk is worth its name: several policies, masks and pressures."""
    home, record, config, given = walked

    assert [stage == bits(given) for stage in stages(home, record, config, given)] == [True] * 5
    assert all(recomputed(home, record, config))
    assert len({decision.policy for decision in given}) == 5
    assert len({decision.seen for decision in given}) > 15
    assert len({tuple(decision.excluded) for decision in given}) > 1
    assert len({decision.pressure for decision in given}) > 50


def test_a_last_bit_that_changes_on_the_way_is_seen_at_every_stage(walked, tmp_path):
    """The smallest change that a probability can suffer, in one decision of many, before it reaches the record."""
    home, record, config, given = walked
    old = given[7]
    new = old.probabilities.copy()
    new[new.argmax()] = np.nextafter(new.max(), 0.0)
    tampered = MemoryRecord()
    for _, entry in rows(record):
        is_old = getattr(entry, "id", None) == old.id
        tampered.append(replace(old, probabilities=new, propensity=float(new[old.action])) if is_old else entry)

    assert [stage == bits(given) for stage in stages(Home(tmp_path), tampered, config, given)] == [False] * 5
    assert list(recomputed(home, tampered, config)).count(False) == 1


def test_probabilities_that_change_in_the_warehouse_alone_are_seen_there(walked, tmp_path):
    """The two stages that read it differ, the three that do not agree."""
    _, record, config, given = walked
    home, last = Home(tmp_path), given[-1]  # DuckDB moves a row that it changes behind all others
    list(stages(home, record, config, given))
    with closing(duckdb.connect(str(home.warehouse))) as connection:
        connection.execute(
            f"UPDATE decisions_{last.context.size} SET probabilities = list_reverse(probabilities), "
            "action = ? - action WHERE id = ?",
            [len(last.arms) - 1, last.id],
        )

    assert [stage == bits(given) for stage in stages(home, record, config, given)] == [True, True, False, True, False]


def test_without_its_snapshot_no_decision_counts_as_computed_again(walked, tmp_path):
    """Not knowing is not being equal."""
    _, record, config, _ = walked

    assert not any(recomputed(Home(tmp_path), record, config))
