"""Facts about looks: figures with their n and interval, silence that is no pass, a shadow that invents no reward."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from bandits.config import Config, NightConfig, TenantConfig
from bandits.errors import ShapeError
from bandits.home import Home
from bandits.learners.baselines import ContextFree
from bandits.monitoring.kpis import REPORTED, span_of
from bandits.night import judging, night
from bandits.scheduled.looks import named, report_of, shadow_of
from bandits.snapshots.keys import signing_key
from bandits.types import Decision, Outcome, Scope
from bandits.warehouse.loading import read_runs
from tests.logs import ARMS, PRICES, domain, simulate
from tests.training.rounds import entries

SCOPE = Scope("acme", "main", "own")
DAY = 86_400.0
START = 100 * DAY
CONFIG = Config(
    tenants={"acme": TenantConfig()},
    domains={"own": domain(1.5e-3)},
    night=NightConfig(trials=1, learners=("linear",)),
)


def at(text: str) -> float:
    """UTC seconds of a moment."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("period", "now", "start", "end"),
    [
        ("daily", "2026-03-01T05:30", "2026-02-28", "2026-03-01"),
        ("weekly", "2026-03-02T05:40", "2026-02-23", "2026-03-02"),  # a Monday
        ("weekly", "2026-03-08T23:59", "2026-02-23", "2026-03-02"),  # a Sunday
        ("monthly", "2026-03-01T05:50", "2026-02-01", "2026-03-01"),
        ("monthly", "2026-01-31T00:00", "2025-12-01", "2026-01-01"),
    ],
)
def test_a_period_is_the_last_whole_one(period, now, start, end):
    """The first moment included, the last not."""
    assert span_of(period, at(now)) == (at(start), at(end))


def test_another_period_is_an_error():
    """It names those there are."""
    with pytest.raises(ShapeError, match="daily, weekly, monthly"):
        span_of("yearly", 0.0)  # type: ignore[arg-type]


@pytest.fixture
def home(tmp_path) -> Home:
    """Four decisions of one day with all that may come back, and one of the day before."""
    home = Home(tmp_path)
    base = next(entries(1, SCOPE, "vector-2", ARMS, START))
    assert isinstance(base, Decision)
    with home.open_record() as record:
        for i, day in enumerate((1.0, 1.0, 1.0, 1.0, 0.0)):
            record.append(replace(base, id=f"{i:032x}", time=START + day * DAY + 60.0 * i))
        for i, told in enumerate(
            (
                {"quality": 1.0, "cost_usd": 1e-3, "latency_s": 1.0, "vote": 1},
                {"quality": 0.5, "cost_usd": 3e-3, "latency_s": 3.0, "vote": -1},
                {"quality": 0.0, "cost_usd": 0.0, "source": "failed"},
            )
        ):
            record.append(Outcome(f"{i:032x}", START + DAY + 600.0, SCOPE, **told))
        record.append(
            Outcome(f"{0:032x}", START + DAY + 700.0, SCOPE, vote=-1), Outcome(f"{4:032x}", START + DAY, SCOPE, vote=1)
        )
    return home


def test_a_report_gives_each_figure_with_its_n_and_is_stored(home):
    """By hand: costs add up, the last vote counts, who failed is known, who said nothing is nobody."""
    run = report_of(home, CONFIG, SCOPE, "daily", START + 2 * DAY + 1.0)
    figures = {figure["name"]: figure for figure in run["report"]["figures"]}

    assert run["report"]["decisions"] == 4
    assert (figures["mean reward"]["value"], figures["mean reward"]["n"]) == (0.5, 3)
    assert figures["mean reward"]["low"] == pytest.approx(0.5 - 1.96 * 0.5 / np.sqrt(3))
    assert figures["cost per request"]["value"] == pytest.approx(4e-3 / 3)
    assert (figures["latency p50"]["value"], figures["latency p50"]["n"]) == (2.0, 2)
    assert figures["failed, of those with an outcome"]["value"] == pytest.approx(100 / 3)
    assert (figures["satisfied, of the votes"]["value"], figures["satisfied, of the votes"]["n"]) == (0.0, 2)
    assert figures["of decisions have a vote"]["value"] == 50.0
    assert figures["of decisions have a reward"]["value"] == 75.0
    (stored,) = read_runs(home.warehouse, SCOPE)
    assert (stored["verdict"], stored["id"]) == (REPORTED, run["id"])
    assert "4 decisions" in run["report"]["markdown"]


def test_no_data_is_not_a_pass(home):
    """A day on which nothing was decided: every figure says so."""
    run = report_of(home, CONFIG, SCOPE, "daily", START + 9 * DAY)

    assert run["report"]["decisions"] == 0
    assert {figure["value"] for figure in run["report"]["figures"]} == {None}
    assert "That is not a pass" in run["report"]["markdown"]
    assert run["report"]["markdown"].count("no data") == len(run["report"]["figures"])


def _on_trial(tmp_path, policy) -> Home:
    """A home whose learned policy serves and has this one on trial against it; 1,500 rounds came later."""
    home, key = Home(tmp_path), signing_key(tmp_path)
    with home.open_record() as record:
        record.append(*entries(1500, SCOPE, "vector-2", ARMS, START + DAY))

    learned = night.learn(simulate(1500, 0), CONFIG.domains["own"], CONFIG.night)
    judged = night.judge(learned, CONFIG.night)
    assert judged.publish == "candidate"
    night.conclude("run", SCOPE, learned, judged, CONFIG.night, home, key, START)
    terms = {"against": "000001", "number": 1, "horizon": 3000, "position": 0, "key": key}
    judging.register(home, SCOPE, policy, CONFIG.domains["own"], now=START, expires=START + 60 * DAY, **terms)
    return home


def test_the_shadow_of_a_bad_candidate_is_seen_to_be_worse(tmp_path):
    """The cheap arm whatever comes, against what was learned: by the rewards that were logged, and those alone."""
    cheap = ContextFree("fixed", ARMS, "vector-2", np.array([1.0, 0.0, 0.0]), PRICES, 1e-2, 0.02)
    found = shadow_of(_on_trial(tmp_path, cheap), CONFIG, SCOPE, START + 20 * DAY)

    assert (found.trial, found.against, found.rounds) == ("000001", "000001", 1333)
    assert found.high < 0.0
    assert found.candidate == pytest.approx(0.5, abs=0.05)
    assert found.gate is not None
    assert found.gate.outcome != "pass"
    assert found.agreement is not None
    assert 0.0 < found.agreement < 0.6
    assert "| advantage | -0." in found.render()


def test_without_rounds_or_a_trial_there_is_no_data(tmp_path):
    """Which is said, and is no number."""
    cheap = ContextFree("fixed", ARMS, "vector-2", np.array([1.0, 0.0, 0.0]), PRICES, 1e-2, 0.02)
    home = _on_trial(tmp_path / "one", cheap)

    early = shadow_of(home, CONFIG, SCOPE, START + 1.0)
    nobody = shadow_of(Home(tmp_path / "two"), CONFIG, SCOPE, START)

    assert (early.rounds, early.advantage) == (0, None)
    assert "No data" in early.render()
    assert "No learned policy serves" in nobody.render()


def test_scopes_are_named_or_all():
    """As flows and commands ask for them."""
    assert named(CONFIG, None) == named(CONFIG, ["acme/main/own"]) == [SCOPE]
