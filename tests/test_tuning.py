"""Facts about the search: it resumes, it never judges by what it saw, and what it applies is there to be read."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import optuna
import pytest

from bandits.config import NightConfig, parse_config
from bandits.errors import ConfigError
from bandits.home import Home
from bandits.learners.doubly_robust import Parameters
from bandits.learners.frozen import thaw
from bandits.night import night
from bandits.settings.tuning import DIMENSIONS, TuningConfig
from bandits.snapshots.keys import signing_key, trusted_keys
from bandits.snapshots.loading import load
from bandits.training.training import prepare, train, within
from bandits.tuning.points import Point, Tuned, point_of
from bandits.tuning.search import Search
from bandits.tuning.studies import open_study
from bandits.tuning.tuning import applied, held_out, tune
from bandits.types import Scope
from tests.logs import domain, simulate

ROOT = Path(__file__).parents[1]
SCOPE = Scope("acme", "main", "model_routing")
BUDGET = 1.5e-3
PREPARED = prepare(simulate(600, 7), domain(BUDGET), 200)
EVERYTHING = TuningConfig(space=DIMENSIONS)


def two_arms():
    """The cheap and the middle one."""
    return domain(BUDGET).model_copy(update={"arms": domain(BUDGET).arms[:2]})


def noise(n: int, seed: int):
    """A world in which no setting is better than another."""
    return simulate(n, seed, expected=lambda x: np.full((len(x), 3), 0.5))


def test_on_pure_noise_the_defaults_stay():
    """Over ten worlds the search always finds something that looks better, and what was held out rarely agrees."""
    found = [tune(prepare(noise(500, seed), domain(BUDGET), 200), trials=6, seed=seed, study="n") for seed in range(10)]

    assert sum(one.adopted for one in found) <= 4
    assert all(one.parameters == Parameters() for one in found if not one.adopted)
    assert np.mean([one.overfit_gap for one in found]) > 0.0
    assert all(one.reason for one in found)


def sharp(contexts):
    """A world of steep slopes, in which the default penalties hold the arms together far too strongly."""
    x = np.asarray(contexts, dtype=np.float64)
    return 0.5 + 0.4 * np.tanh(3.0 * np.stack([x[:, 1], x[:, 0], -x[:, 0] - x[:, 1]], axis=1))


def test_where_the_defaults_are_wrong_the_search_proves_it_and_what_it_applies_earns_more():
    """On the truth, which nobody saw; most of five logs."""
    adopted, gains = 0, []
    for seed in range(5):
        log = simulate(500, seed, expected=sharp, probabilities=(0.34, 0.33, 0.33))
        prepared = prepare(log, domain(2e-2), 200)
        found = tune(prepared, trials=8, seed=seed, study="s")
        fresh = np.random.default_rng(99).normal(size=(2000, 2)).astype(np.float32)
        worth = []
        for parameters in (Parameters(), found.parameters):
            policy = train(prepared, parameters).policy
            probs = policy.probabilities(fresh, np.ones((2000, 3), np.bool_))
            worth.append(float((probs * sharp(fresh)).sum(axis=1).mean()))
        adopted += found.adopted
        gains.append(worth[1] - worth[0])

    assert adopted >= 3
    assert np.mean(gains) > 0.02


def test_a_search_cut_short_goes_on_where_it_stopped_and_ends_where_it_would_have(tmp_path):
    """6 trials in two goes are the 6 trials of one go."""
    seen: list[int] = []
    kept = {"seed": 0, "study": "a@1", "storage": tmp_path / "j", "settings": EVERYTHING}

    tune(PREPARED, trials=3, on_trial=seen.append, **kept)
    resumed = tune(PREPARED, trials=6, on_trial=seen.append, **kept)

    assert seen == [1, 2, 3, 4, 5, 6]
    assert resumed == tune(PREPARED, trials=6, seed=0, study="b", settings=EVERYTHING)


KILL = """
import os, signal, sys
from pathlib import Path
from bandits.tuning.search import Search
from tests.test_tuning import EVERYTHING, PREPARED, tune

scored = Search._scored
def killed(self, point):
    if len(self.cache) > 3:  # in the midst of a trial, which the journal has as running
        os.kill(os.getpid(), signal.SIGKILL)
    return scored(self, point)
Search._scored = killed
tune(PREPARED, trials=6, seed=0, study="a@1", storage=Path(sys.argv[1]), settings=EVERYTHING)
"""


def test_a_search_that_was_killed_counts_what_it_had_and_retires_what_ran(tmp_path):
    """kill -9 of a real process in the midst of a trial."""
    journal = tmp_path / "j"
    done = subprocess.run([sys.executable, "-c", KILL, str(journal)], cwd=ROOT, check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL
    backend = optuna.storages.journal.JournalFileBackend(str(journal))
    before = optuna.load_study(study_name="a@1", storage=optuna.storages.JournalStorage(backend)).trials

    seen: list[int] = []
    found = tune(PREPARED, trials=6, seed=0, study="a@1", storage=journal, settings=EVERYTHING, on_trial=seen.append)

    after = optuna.load_study(study_name="a@1", storage=optuna.storages.JournalStorage(backend)).trials
    finished = [t.number for t in before if t.state.name == "COMPLETE"]
    assert [t.state.name for t in before][-1] == "RUNNING"
    assert {after[number].values[0] for number in finished} == {before[number].values[0] for number in finished}
    assert [t.state.name for t in after].count("FAIL") == 1
    assert seen[0] == len(finished) + 1
    assert found.trials == 6


def test_a_study_on_postgresql_is_resumed_too(postgres_url):
    """Where the record is, several processes may search at once."""
    kept = {"seed": 0, "study": "a@1", "storage": postgres_url, "settings": EVERYTHING}
    tune(PREPARED, trials=2, **kept)
    found = tune(PREPARED, trials=4, **kept)

    assert found == tune(PREPARED, trials=4, seed=0, study="b", settings=EVERYTHING)


def test_the_next_search_of_the_family_begins_with_what_the_last_one_chose(tmp_path):
    """The second trial; the first is the defaults. Another family's is nobody's business."""
    journal, prepared = tmp_path / "j", prepare(simulate(500, 1, expected=sharp), domain(2e-2), 200)
    for name, trials in (("acme/main/own@1", 6), ("acme/main/own@2", 2), ("acme/side/own@2", 1)):
        tune(prepared, trials=trials, seed=trials, study=name, storage=journal)

    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(journal)))
    first, second, other = (
        optuna.load_study(study_name=name, storage=storage)
        for name in ("acme/main/own@1", "acme/main/own@2", "acme/side/own@2")
    )
    chosen = point_of(first.user_attrs["chosen"]).parameters
    assert chosen != Parameters()
    assert second.trials[1].params == {name: getattr(chosen, name) for name in ("shared", "own", "correction")}
    assert [t for t in other.get_trials() if t.state.name == "WAITING"] == []


def test_what_is_held_out_is_a_share_by_hash_and_never_seen():
    """Independent of order and of what else is in the log; and independent of the folds."""
    log = simulate(4000, 0)
    rows = held_out(log, 0.3)

    assert rows.mean() == pytest.approx(0.3, abs=0.03)
    assert (held_out(log.where(np.arange(4000) % 2 == 0), 0.3) == rows[::2]).all()
    folds = prepare(log, domain(BUDGET), 200).slab.folds
    assert [rows[folds == fold].mean() for fold in range(5)] == pytest.approx([0.3] * 5, abs=0.06)


def test_the_search_is_blind_to_what_is_held_out():
    """Other rewards there: the same trials, the same choice; only the verdict may differ."""
    log = simulate(600, 7)
    rows = held_out(log, 0.3)
    other = prepare(_told(log, np.where(rows, 1.0 - log.rewards, log.rewards)), domain(BUDGET), 200)

    one, two = (tune(each, trials=5, seed=0, study="s") for each in (PREPARED, other))

    assert one.convergence == two.convergence
    assert one.front == two.front
    assert one.before != two.before


def _told(log, rewards):

    return replace(log, rewards=rewards)


def test_no_point_has_a_floor_below_the_domains_nor_spends_more_than_its_budget():
    """Whatever a sampler says, in the search and when it is applied."""
    own = domain(BUDGET)
    assert Point(floor=0.001).domain(own).floor == own.floor
    assert Point(floor=0.1).domain(own).floor == 0.1
    assert Point(Parameters(own=5.0)).domain(own) is own
    found = tune(PREPARED, trials=8, seed=3, study="s", settings=EVERYTHING)
    assert all(one["floor"] >= own.floor - 1e-6 and one["spend"] <= 1.0 for one in found.front)


def test_a_constraint_that_no_point_keeps_leaves_the_defaults():
    """A reward that nobody reaches; the reason says so."""
    settings = TuningConfig(constraints={"reward": 0.999})
    found = tune(PREPARED, trials=4, seed=0, study="s", settings=settings)

    assert (found.adopted, found.front) == (False, ())
    assert "no trial kept the constraints" in found.reason


def test_a_point_that_breaks_a_constraint_on_held_out_rounds_is_refused():
    """Though it kept it in the search, and though it is better: the cost limit lies between the two."""
    rows = held_out(PREPARED.feedback, 0.3)
    seen = within(PREPARED, ~rows, PREPARED.domain)
    costs = {"cost": 1.0}
    search = Search(seen, PREPARED.feedback.where(rows), TuningConfig(constraints=costs), None)
    default = search._judged(Point())
    dear = {"reward": default["reward"] + 0.1, "cost": default["cost"] + 2.0}

    assert search._refused({**default, "reward": default["reward"] + 0.1}, default) == []
    assert [text.split(" by ")[0] for text in search._refused(dear, default)] == [
        "it may break budget",
        "it may break cost",
    ]


def test_the_chosen_point_is_the_best_feasible_one_and_the_front_holds_what_none_beats():
    """The stated rule."""
    found = tune(PREPARED, trials=12, seed=1, study="s", settings=TuningConfig(objectives=("reward", "cost")))

    rewards, costs = ([one[name] for one in found.front] for name in ("reward", "cost"))
    assert costs == sorted(costs)
    assert rewards == sorted(rewards)
    assert found.convergence[-1] == max(rewards)
    assert list(found.convergence) == sorted(found.convergence)


def test_a_search_stops_when_nothing_better_comes():
    """After so many trials without; the report says so."""
    found = tune(PREPARED, trials=60, seed=0, study="s", settings=TuningConfig(patience=3))

    assert found.trials < 60
    assert "3 trials in a row found nothing better" in found.stopped


def test_a_log_too_small_to_hold_a_part_out_is_not_searched():
    """Forty rounds, of which an arm has few."""
    found = tune(prepare(simulate(36, 1, probabilities=(0.5, 0.5)), two_arms(), 20), trials=4, seed=0, study="s")

    assert (found.trials, found.adopted) == (0, False)
    assert "too small" in found.reason


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ({"objectives": ["rewards"]}, "tuning.objectives"),
        ({"constraints": {"price": 1.0}}, "tuning.constraints"),
        ({"constraints": {"cost": float("inf")}}, "limit of cost"),
        ({"space": ["own", "own"]}, "each name may stand once"),
        ({"trails": 3}, "unknown key 'trails'"),
    ],
)
def test_an_unknown_metric_or_key_is_an_error(said, fault):
    """When the file is read, not in the night."""
    arms = [{"name": name, "model": name, "usd_per_request": 1e-4} for name in ("a", "b")]
    raw = {"tenants": {"acme": {}}, "domains": {"own": {"arms": arms, "budget_usd_per_request": 1e-3}}, "tuning": said}

    with pytest.raises(ConfigError, match=fault):
        parse_config(raw, "test")


def test_a_latency_that_nobody_measured_is_an_error_and_one_that_was_is_a_metric():
    """An objective, and a limit that only some points keep."""
    settings = TuningConfig(objectives=("reward", "latency"), constraints={"latency": 10.0})
    with pytest.raises(ConfigError, match="latency_s of every arm"):
        tune(PREPARED, trials=2, seed=0, study="s", settings=settings)

    found = tune(PREPARED, trials=3, seed=0, study="s", settings=settings, latencies=np.array([0.1, 1.0, 5.0]))
    assert all(0.1 <= one["latency"] <= 5.0 for one in found.front)


def test_gp_without_torch_is_an_error_that_says_what_to_install(monkeypatch):
    """Never another sampler in its place."""
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ConfigError, match="install the extra gp"):
        tune(PREPARED, trials=1, seed=0, study="s", settings=TuningConfig(sampler="gp"))


def test_a_storage_that_is_none_is_an_error_without_its_password(tmp_path):
    """A folder in the journal's place."""
    (tmp_path / "j").mkdir()
    with pytest.raises(ConfigError, match="must be readable"):
        open_study("a", tmp_path / "j", TuningConfig(), ["maximize"])


def test_applied_values_are_read_back_from_the_snapshot_and_change_decisions(tmp_path):
    """Floor, budget and penalties of an adopted point stand in the manifest and in what is drawn from."""
    home, settings = Home(tmp_path), NightConfig(trials=1, learners=("linear",))
    plain = night.learn(simulate(3000, 0), domain(BUDGET), settings)
    point = Point(Parameters(shared=20.0, own=400.0), floor=0.12, half_life_days=None, spend=0.6)
    tuned = Tuned(**{**asdict(plain.tuned), **asdict(point), "parameters": point.parameters, "adopted": True})
    prepared = applied(plain.prepared, tuned)
    trained = night.training.train(prepared, tuned.parameters)
    contest = night.compete(plain.prepared, trained, ("linear",))
    learned = night.Learned(plain.prepared, tuned, trained, contest, plain.whole, plain.left_out)
    policies = []
    for one in (plain, learned):
        judged = night.judge(one, settings)
        assert judged.publish == "candidate"
        night.conclude("run", SCOPE, one, judged, settings, home, signing_key(tmp_path), 0.0)
        found = load(home.snapshots, SCOPE, trusted=trusted_keys(tmp_path), now=0.0)
        policies.append(thaw(found.frozen))

    said = found.manifest.evidence["tuning"]
    assert (said["floor"], said["spend"], said["parameters"]["own"]) == (0.12, 0.6, 400.0)
    assert found.frozen.arrays["money"] == pytest.approx([0.6 * BUDGET, 0.12])
    contexts = np.random.default_rng(5).normal(size=(2000, 2)).astype(np.float32)
    rows = [policy.probabilities(contexts, np.ones((2000, 3), np.bool_)) for policy in policies]
    assert rows[1].min() == pytest.approx(0.12 / 3)
    assert (rows[1] @ np.array([1e-4, 1e-3, 1e-2])).mean() < (rows[0] @ np.array([1e-4, 1e-3, 1e-2])).mean()
    assert (rows[0].argmax(axis=1) != rows[1].argmax(axis=1)).mean() > 0.05
