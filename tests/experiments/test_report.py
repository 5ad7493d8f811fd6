"""What an experiment has shown: whether it is sound, by how much a variant is better, and how it is told."""

from __future__ import annotations

import json
import math
import time
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

import pilotage
from bandits.config import load_config
from bandits.errors import ExperimentError, PilotageError
from bandits.experiments import ab, analysis, exposure, report
from bandits.experiments import plan as planning
from bandits.experiments.analysis import analyse, foretold
from bandits.experiments.exposure import Rows
from bandits.experiments.serving import HOLDBACK
from bandits.home import Home
from bandits.record.memory import MemoryRecord
from bandits.record.port import rows
from bandits.router import Router
from bandits.types import Decision, Outcome
from bandits.warehouse.loading import load
from tests.experiments.test_path import DAY, SCOPE, START, TRIAL, domain
from tests.experiments.test_units import NOW, folded, world


def found(known, log, now=NOW, name="trial"):
    """What it shows."""
    one, them = folded(known, log, now, name)
    return analyse(one, them, now)


class TestAnalysis:
    """Health first, then the difference."""

    def test_an_effect_is_found_and_none_is_not(self):
        known = domain({"trial": TRIAL})
        assert found(known, world(known, effect=0.15)).comparisons[0].reward.verdict == "better"
        assert found(known, world(known, effect=-0.15)).comparisons[0].reward.verdict == "worse"
        none = found(known, world(known))
        assert none.health == "ok"
        assert none.comparisons[0].reward.verdict == "hold"
        assert "cannot be told from control yet" in none.conclusion

    def test_a_true_effect_lies_in_the_interval(self):
        known = domain({"trial": TRIAL})
        held = [found(known, world(known, effect=0.1, seed=seed)).comparisons[0].reward for seed in range(6)]
        assert sum(one.low <= 0.1 <= one.high for one in held) >= 5
        assert not all(one.low <= 0.3 <= one.high for one in held)  # the negative control

    def test_what_was_known_before_narrows_the_interval(self):
        """Levels that come back explain most of the variance; levels that do not, nothing, and cost nothing."""
        known = domain({"trial": TRIAL})
        log = world(known, stays=0.3, effect=0.1)
        (adjusted,) = found(known, log).comparisons
        _, them = folded(known, log)
        one, _ = folded(known, log)
        (plain,) = analyse(one, replace(them, before=np.full(len(them), np.nan)), NOW).comparisons
        assert adjusted.explained > 0.5
        assert plain.explained is None
        assert adjusted.reward.high - adjusted.reward.low < 0.75 * (plain.reward.high - plain.reward.low)
        shuffled = np.random.default_rng(0).permutation(them.before)
        (useless,) = analyse(one, replace(them, before=shuffled), NOW).comparisons
        assert abs(useless.explained) < 0.05
        assert useless.reward.high - useless.reward.low < 1.05 * (plain.reward.high - plain.reward.low)

    def test_shares_that_are_not_as_planned_withhold_everything(self):
        """Half of those who see the new variant leave before they are logged."""
        known = domain({"trial": TRIAL})
        log = world(known, n=900, effect=0.3)
        keep = np.array([not (s == "experiment" and int(u[1:]) % 2) for s, u in zip(log.slots, log.users, strict=True)])
        where = np.cumsum(keep) - 1
        heard = exposure._heard(log.came, keep[log.came.rounds])
        part = Rows(
            *([x for x, k in zip(c, keep, strict=True) if k] for c in (log.ids,)),
            times=log.times[keep],
            users=[x for x, k in zip(log.users, keep, strict=True) if k],
            policies=[x for x, k in zip(log.policies, keep, strict=True) if k],
            slots=[x for x, k in zip(log.slots, keep, strict=True) if k],
            came=replace(heard, rounds=where[heard.rounds]),
        )
        seen = found(known, part)
        assert (seen.health, seen.comparisons) == ("shares not as planned", ())
        assert seen.p_shares < 0.001 < found(known, log).p_shares
        assert "nothing is concluded" in seen.conclusion

    def test_crossovers_withhold_everything_when_they_are_many(self):
        known = domain({"trial": TRIAL})
        log = world(known, effect=0.3)
        policies = ["fixed:cheap" if i % 20 == 0 else p for i, p in enumerate(log.policies)]
        slots = ["experiment" if i % 20 == 0 else s for i, s in enumerate(log.slots)]
        seen = found(known, replace(log, policies=policies, slots=slots))
        assert seen.health == "not served as assigned"
        assert seen.strayed > 10

    def test_too_few_units_are_not_enough_data(self):
        known = domain({"trial": TRIAL})
        assert found(known, world(known, n=90, effect=0.4)).health == "not enough data"
        assert found(known, world(known, n=0)).health == "not enough data"
        assert found(known, world(known, n=0), START - 1.0).health == "not begun"

    def test_silence_of_one_variant_is_said(self):
        known = domain({"trial": TRIAL})
        log = world(known, n=900)
        third = np.arange(len(log.ids)) % 3 > 0
        for silent, said in ((third & (np.array(log.slots) == "experiment"), True), (third, False)):
            quality = np.where(silent, np.nan, log.came.quality)
            seen = found(known, replace(log, came=replace(log.came, quality=quality)))
            assert seen.health == "ok"
            assert (seen.p_silence < 0.001) == said
            assert ("of those who answered" in report.render(seen).replace("\n", " ")) == said

    @pytest.mark.parametrize(("usd", "guard"), [(2e-3, "breached"), (0.0, "kept"), (5e-4, "hold")])
    def test_the_guardrail_watches_what_a_request_costs(self, usd, guard):
        known = domain({"trial": TRIAL | {"guardrail": {"usd_more": 5e-4, "dear_usd": 4e-3}}})
        (one,) = found(known, world(known, n=900, usd=usd)).comparisons
        assert one.guard == guard
        assert one.guard in report.render(found(known, world(known, n=900, usd=usd)))
        assert one.usd.low <= usd <= one.usd.high

    def test_several_variants_share_the_error_rate(self):
        variants = {name: {"policy": p, "share": 0.25} for name, p in
                    (("a", "stable"), ("b", "fixed:cheap"), ("c", "fixed:middle"), ("d", "stable"))}  # fmt: skip
        known = domain({"trial": TRIAL | {"variants": variants}})
        seen = found(known, world(known, n=800, effect=0.2))
        assert [(one.variant, one.reward.verdict) for one in seen.comparisons] == [
            ("b", "better"),
            ("c", "better"),
            ("d", "hold"),
        ]
        one, them = folded(known, world(known, n=800, effect=0.2))
        mine = np.isin(them.variants, (0, 1))
        alone = ab.difference(
            them.variants[mine] == 1,
            them.rewards[mine],
            0.5,
            0.05 / 3,
            foretold=foretold(them.rewards[mine], them.before[mine]),
            horizon=analysis.planned_units(one, "b"),
        )
        assert seen.comparisons[0].reward == alone

    def test_the_holdback_is_held_against_everybody_else(self):
        known = domain({"trial": TRIAL}, holdback={"start": TRIAL["start"], "share": 0.3})
        log = world(known, n=900)
        quality = np.where(np.array(log.slots) == "holdback", log.came.quality - 0.2, log.came.quality)
        seen = found(known, replace(log, came=replace(log.came, quality=np.clip(quality, 0, 1))), name=HOLDBACK)
        assert seen.exposed["holdback"] + seen.exposed["served"] == 900
        assert seen.strayed == 0
        assert (seen.control, seen.comparisons[0].reward.verdict) == ("holdback", "better")
        trial = found(known, log)
        assert sum(trial.exposed.values()) == seen.exposed["served"]

    def test_an_experiment_of_no_effect_seldom_stops_on_these_outcomes(self):
        known = domain({"trial": TRIAL})
        one, them = folded(known, world(known, n=300))
        assert analysis.false_stops(one, them, 100, np.random.default_rng(0)) <= 0.1
        with pytest.raises(ExperimentError, match="needs 100 units"):
            analysis.false_stops(*folded(known, world(known, n=60)), 10, np.random.default_rng(0))


def test_a_plan_prices_a_variant_by_the_arms_that_the_budget_allows():
    """Dear is out of reach at this budget, so the floor of .06 is shared by two."""
    known = domain({"trial": TRIAL}, budget_usd_per_request=1e-3)
    one, _ = folded(known, world(known, n=30))
    found = planning.plan(one, known, world(known, n=30), START, START + DAY)
    assert [each.usd_per_request for each in found.variants] == [None, pytest.approx(0.97 * 1e-4 + 0.03 * 1e-3)]


class TestForetold:
    """CUPED, one unit after the other."""

    def test_it_is_what_a_student_would_write(self):
        rng = np.random.default_rng(0)
        before = np.where(rng.random(120) < 0.7, rng.random(120), np.nan)
        outcomes = np.clip(np.nan_to_num(before, nan=0.4) * 0.6 + rng.normal(0.2, 0.1, 120), 0, 1)
        got = foretold(outcomes, before)
        for i in range(120):
            known = [j for j in range(i) if not np.isnan(before[j])]
            if len(known) < 20 or np.isnan(before[i]):
                want = (0.5 + outcomes[:i].sum()) / (1 + i)
            else:
                slope, level = np.polyfit(before[known], outcomes[known], 1)
                want = min(max(level + slope * before[i], 0.0), 1.0)
            assert got[i] == pytest.approx(want, abs=1e-9)

    def test_no_unit_is_foretold_by_itself_or_by_a_later_one(self):
        rng = np.random.default_rng(1)
        before, outcomes = rng.random(80), rng.random(80)
        changed = outcomes.copy()
        changed[50:] = 1.0 - changed[50:]
        assert foretold(outcomes, before)[:51].tolist() == foretold(changed, before)[:51].tolist()

    def test_an_experiment_of_no_effect_seldom_stops_however_often_one_looks(self):
        """200 of 500 units that are foretold well; a z-test at every look is the negative control."""
        stops = control = 0
        n = np.arange(1, 501)
        for seed in range(200):
            rng = np.random.default_rng(seed)
            before, treated = rng.random(500), rng.random(500) < 0.5
            outcomes = np.clip(before + rng.normal(0, 0.1, 500), 0, 1)
            guess = foretold(outcomes, before)
            stops += ab.difference(treated, outcomes, 0.5, 0.1, foretold=guess, horizon=500).verdict != "hold"
            x = ab.scores(treated, outcomes, 0.5, foretold=guess)
            control += bool((np.abs(x.cumsum()) > 1.645 * x.std() * np.sqrt(n))[49:].any())
        allowance = 0.1 + 2 * math.sqrt(0.1 * 0.9 / 200)
        assert stops / 200 <= allowance < control / 200

    def test_without_anything_known_it_is_the_mean_before(self):
        treated, outcomes = np.ones(30, bool), np.random.default_rng(2).random(30)
        plain = ab.scores(treated, outcomes, 0.5)
        assert ab.scores(treated, outcomes, 0.5, foretold=foretold(outcomes, np.full(30, np.nan))) == pytest.approx(
            plain, abs=1e-12
        )

    def test_the_effect_is_that_of_tea_tasting(self):
        """What tea-tasting 1.14.0 says of these very users: by Mean("y", covariate="x"), and by Mean("y"), effect and
        standard error. It fits theta once, to all, and divides by realised shares: so not to the last digit."""
        rng = np.random.default_rng(7)
        x = rng.uniform(0.1, 0.9, 4000)
        treated = rng.random(4000) < 0.5
        y = np.clip(x + rng.normal(0, 0.1, 4000) + 0.05 * treated, 0, 1)
        for guess, effect, error in ((foretold(y, x), 0.049091, 0.0031387), (None, 0.049967, 0.0078307)):
            scores = ab.scores(treated, y, 0.5, foretold=guess)
            assert scores.mean() == pytest.approx(effect, abs=0.1 * error)
            assert scores.std(ddof=1) / math.sqrt(4000) == pytest.approx(error, rel=0.03)


class TestAtTheCommandLine:
    """list, plan, report: text for a person, JSON for a machine."""

    @pytest.fixture
    def home(self, tmp_path, monkeypatch):
        """A home with 200 users of a running experiment, who came twice, in the warehouse."""
        config = tmp_path / "pilotage.toml"
        config.write_text(
            "[tenants.acme]\n[domains.routing]\nfeatures = 'vector-2'\nbudget_usd_per_request = 2e-3\n"
            + "".join(
                f"[[domains.routing.arms]]\nname = '{a}'\nmodel = '{a}'\nusd_per_request = {p}\n"
                for a, p in (("cheap", 1e-4), ("dear", 1e-2))
            )
            + "[domains.routing.experiments.trial]\nstart = 2026-01-01T00:00:00Z\nend = 2026-02-01T00:00:00Z\n"
            "effect = 0.2\nspread = 0.3\nguardrail = {usd_more = 1e-3, dear_usd = 0.05}\n"
            "variants.control = {policy = 'stable', share = 0.5}\n"
            "variants.cheap = {policy = 'fixed:cheap', share = 0.5}\n"
        )
        monkeypatch.setenv("PILOTAGE_CONFIG", str(config))
        monkeypatch.setenv("PILOTAGE_HOME", str(tmp_path / "home"))
        start, place, memory = 1_767_225_600.0, Home(tmp_path / "home"), MemoryRecord()
        known, clock, rng = load_config().domains["routing"], [0.0], np.random.default_rng(0)
        router = Router(SCOPE, known, memory, rng, lambda: clock[0])
        for i in range(400):
            clock[0] = start + 60.0 * i
            decision = router.decide(np.zeros(2), f"user-{i % 200}")
            quality = float(rng.random() < (0.8 if decision.slot == "experiment" else 0.3))
            router.report(Outcome(decision.id, clock[0] + 1, SCOPE, quality=quality, cost_usd=1e-4))
        place.root.mkdir()
        with place.open_record() as record:
            record.append(*(entry for _, entry in rows(memory)))
            load(record, place.warehouse)
        return place

    def run(self, *arguments, command="experiment"):
        """Exit code and standard output of `pilotage experiment …`."""
        result = CliRunner().invoke(pilotage.app, [command, *arguments])
        if isinstance(result.exception, PilotageError):
            return 1, str(result.exception)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.exit_code, result.stdout

    def test_the_report_says_what_was_served_and_what_it_did(self, home):
        code, out = self.run("report", "trial", "--aa", "20")
        assert code == 0, out
        assert "cheap is better than control" in out
        assert max(map(len, out.splitlines())) <= 80
        assert "of 20 experiments of no effect stopped" in out
        said = json.loads(self.run("report", "trial", "--json")[1])
        assert sum(said["exposed"].values()) == 200
        assert (said["health"], said["strayed"], said["comparisons"][0]["guard"]) == ("ok", 0, "hold")

    def test_the_plan_and_the_list_say_what_is_declared(self, home, monkeypatch):
        code, out = self.run("list")
        assert code == 0
        assert "acme/main/routing trial: ended" in out
        assert "50% fixed:cheap" in out
        monkeypatch.setattr(time, "time", lambda: 1_767_225_600.0 + 25_000.0)
        code, out = self.run("plan", "trial")
        assert code == 0
        said = json.loads(self.run("plan", "trial", "--json")[1])
        needed = ab.units_needed(0.2, 0.3, 0.05, 0.8)
        assert said["variants"][1]["needed"] == needed
        assert said["units_per_day"] == 200.0
        usd = [one["usd_per_request"] for one in said["variants"]]
        assert usd == [None, pytest.approx(0.99 * 1e-4 + 0.01 * 1e-2)]
        assert said["variants"][1]["days"] == pytest.approx(needed / 200.0)
        assert f"{needed:,}" in out
        with home.open_record() as record:
            told = [entry for _, entry in record.read(0, 800)]
        user = {e.id: e.user for e in told if isinstance(e, Decision)}
        rewards: dict[str, list[float]] = {}
        for e in told:
            if isinstance(e, Outcome):
                rewards.setdefault(user[e.decision_id], []).append(e.quality)
        spread = np.std([np.mean(each) for each in rewards.values()], ddof=1)
        assert said["measured"] == pytest.approx(spread)
        assert f"(in the log: {spread:.3f})" in out.replace("\n", " ")
        assert max(map(len, out.splitlines())) <= 80

    def test_an_experiment_that_is_not_declared_is_an_error_that_lists_those_there_are(self, home):
        code, out = self.run("report", "nothing")
        assert code == 1
        assert "there is trial" in out

    def test_the_effect_of_an_arm_is_that_of_the_rounds_of_whoever_draws_both(self, home):
        """Those of the control, which explores; a variant that nearly always plays cheap tells too little of dear."""
        code, out = self.run("dear", "cheap", "--by", "hour", "--json", command="effect")
        assert code == 0, out
        said = json.loads(out)
        with home.open_record() as record:
            explored = sum(isinstance(e, Decision) and e.policy == "explore" for _, e in record.read(0, 800))
        assert (said["overall"]["n"], said["faint"]) == (explored, 400 - explored)
        assert [one["group"] for one in said["groups"]] == ["00 to 06 UTC", "06 to 12 UTC"]
        assert "silence does not depend on the arm" in said["assumes"]
        assert "Cannot say whether dear is better" in self.run("dear", "cheap", command="effect")[1]
        code, out = self.run("dear", "nobody", command="effect")
        assert (code, "one of cheap, dear, but got 'nobody'" in out) == (1, True)
