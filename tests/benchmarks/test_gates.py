"""The measuring of gates and of drift detection itself."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from benchmarks import drift_detection, gates

RNG = np.random.default_rng


class TestWorld:
    """Every round there can be."""

    @pytest.mark.parametrize("advantage", [0.0, 0.15])
    def test_the_advantage_is_what_is_said_by_enumeration(self, advantage):
        """Chance-weighted scores of candidate less incumbent; and a log drawn from it agrees."""
        one = gates.world(advantage)
        candidate, incumbent, bound = one.scores()
        assert one.chances.sum() == pytest.approx(1.0, abs=1e-12)
        assert float(one.chances @ (candidate - incumbent)) == pytest.approx(advantage, abs=1e-12)
        assert np.abs(candidate - incumbent).max() <= bound
        rows = one.draw(40_000, RNG(0))
        x = (candidate - incumbent)[rows]
        error = x.std() / math.sqrt(len(x))
        assert abs(x.mean() - advantage) < 4 * error
        assert abs(x.mean() - advantage - 0.05) > 4 * error  # the negative control

    def test_the_log_is_that_of_the_serving_policy_with_its_floor(self):
        one = gates.world(0.15)
        rows = one.draw(20_000, RNG(1))
        log = gates.logged(one.rounds, rows)
        assert log.propensities.min() == pytest.approx(gates.FLOOR)
        assert np.mean(log.propensities < 0.1) == pytest.approx(0.2, abs=0.02)
        assert (log.rewards == one.rounds.rewards[rows]).all()
        played = (one.candidate[rows].argmax(axis=1) != one.incumbent[rows].argmax(axis=1)).mean()
        assert played == pytest.approx(0.6, abs=0.02)


class TestGates:
    """benchmarks.gates."""

    def test_a_tiny_run_prints_rows_and_a_summary(self, capsys):
        small = {
            "years": 1,
            "night-years": 1,
            "nights": 3,
            "nightly": 100,
            "growth": 40,
            "n": 200,
            "reps": 2,
            "looks": 200,
            "experiments": 2,
        }
        gates.main([word for name, value in small.items() for word in (f"--{name}", str(value))])
        *rows, summary = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert len(rows) == 8
        names = {"alpha", "years", "false_promotion", "power", "power_night_1_10_100", "aa_alpha", "aa_false_stop"}
        assert names | {"srm_false", "srm_found", "false_promotion_night", "met"} <= summary.keys()
        assert summary["years"] == 1

    @pytest.mark.parametrize("options", [["--years", "0"], ["--looks", "5"], ["--seed", "-1"], ["--reps", "x"]])
    def test_bad_options_end_with_a_usage_error(self, options, capsys):
        with pytest.raises(SystemExit) as caught:
            gates.main(options)
        assert caught.value.code == 2
        assert "usage:" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("row", "change", "bar"),
        [
            (0, {}, None),
            (0, {"false_promotion": 0.08}, "false_promotion"),
            (1, {"false_promotion": 0.08}, "false_promotion"),
            (2, {"power": 0.69}, "power"),
            (3, {"power_one_arm": 0.69}, "power_one_arm"),
            (4, {"aa_false_stop": 0.07}, "aa_false_stop"),
            (5, {"noticed": 0.01}, "srm_false"),
            (6, {"noticed": 0.94}, "srm_found"),
            (0, {"unspent": 0.05}, "controls"),
            (1, {"normal": 0.05}, "controls"),
            (4, {"z_test": 0.05}, "controls"),
            (5, {"chi_square": 0.001}, "controls"),
            (7, {"trial": 0.15}, "false_promotion_night"),
            (7, {"picked_trial": 0.15}, "false_promotion_night"),
            (7, {"picked": 0.1}, "controls"),
        ],
    )
    def test_each_bar_is_missed_alone(self, row, change, bar):
        rows = [
            {"years": 400, "false_promotion": 0.05, "unspent": 0.9, "normal": 1.0},
            {"years": 400, "false_promotion": 0.05, "unspent": None, "normal": 0.4},
            {"power": 0.9, "power_night_1_10_100": [0.9, 0.7, 0.2]},
            {"power_one_arm": 0.75, "one_arm_refused": 1.0},
            {"reps": 2000, "aa_false_stop": 0.05, "z_test": 0.5},
            {"reps": 2000, "noticed": 0.001, "chi_square": 0.02},
            {"reps": 2000, "noticed": 1.0, "chi_square": 1.0, "median_units": 4000.0},
            {"years": 40, "trial": 0.025, "picked_trial": 0.0, "picked": 1.0},
        ]
        rows[row] |= change
        found = gates.verdict(rows)
        assert [name for name, met in found["bars"].items() if not met] == ([bar] if bar else [])
        assert found["met"] is (bar is None)

    @pytest.mark.slow
    @pytest.mark.timeout(7200)
    def test_the_whole_meets_its_bars(self, capsys):
        gates.main([])
        summary = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert summary["met"], summary["bars"]


class TestDriftDetection:
    """benchmarks.drift_detection."""

    def test_streams_have_the_means_they_say(self):
        means = np.full(20_000, 0.78)
        for kind, spread in (("binary", 0.414), ("graded", 0.146)):
            values = drift_detection.stream(means, kind, RNG(0))
            assert values.mean() == pytest.approx(0.78, abs=0.015)
            assert values.std() == pytest.approx(spread, abs=0.01)
        for kind in ("binary", "gradual"):
            fall = drift_detection.falls(kind)
            assert (fall[999], fall[-1]) == (0.78, 0.60)
        assert drift_detection.falls("binary")[1000] == 0.60
        assert drift_detection.falls("gradual")[1250] == pytest.approx(0.69, abs=0.01)

    def test_an_alarm_before_the_start_is_let_go_by(self):
        class Third:
            seen = 0

            def see(self, value):
                self.seen += 1
                return self.seen % 3 == 0

        assert drift_detection.first_alarm(Third(), np.zeros(10)) == 2
        assert drift_detection.first_alarm(Third(), np.zeros(10), 3) == 5
        assert drift_detection.first_alarm(Third(), np.zeros(2)) is None

    def test_a_short_run_meets_its_bars_and_the_dummies_do_not(self, capsys):
        drift_detection.main(["--runs", "12", "--events", "1500"])
        *rows, summary = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert len(rows) == 3 * len(drift_detection.DETECTORS)
        assert {"detector", "false_per_5000", "delay_p50", "delay_p95", "missed", "met"} <= summary.keys()
        assert summary["bars"]["control"]
        assert summary["missed"] == 0.0
        by = {(row["detector"], row["stream"]): row for row in rows}
        assert by["always", "binary"]["false_per_5000"] == 1.0
        assert by["never", "binary"]["missed"] == 1.0

    @pytest.mark.parametrize(
        ("change", "bar"),
        [
            ({}, None),
            ({"false_per_5000": 0.02}, "false_per_5000"),
            ({"delay_p95": 282}, "delay_p95"),
            ({"missed": 0.1}, "missed"),
        ],
    )
    def test_each_bar_is_missed_alone(self, change, bar):
        good = {"stream": "binary", "false_per_5000": 0.01, "delay_p50": 100, "delay_p95": 281, "missed": 0.0}
        rows = [
            good | {"detector": "ecusum"} | change,
            good | {"detector": "always", "false_per_5000": 1.0},
            good | {"detector": "never", "missed": 1.0},
        ]
        found = drift_detection.verdict(rows, 1000)
        assert [name for name, met in found["bars"].items() if not met] == ([bar] if bar else [])
        rows[1]["false_per_5000"] = 0.0
        assert not drift_detection.verdict(rows, 1000)["bars"]["control"]

    @pytest.mark.parametrize("options", [["--runs", "1"], ["--events", "10"], ["--seed", "-2"]])
    def test_bad_options_end_with_a_usage_error(self, options, capsys):
        with pytest.raises(SystemExit) as caught:
            drift_detection.main(options)
        assert caught.value.code == 2
        assert "usage:" in capsys.readouterr().err

    @pytest.mark.slow
    @pytest.mark.timeout(3600)
    def test_the_whole_meets_its_bars(self, capsys):
        drift_detection.main(["--runs", "1000"])
        assert json.loads(capsys.readouterr().out.splitlines()[-1])["met"]
