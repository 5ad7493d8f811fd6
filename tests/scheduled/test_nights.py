"""Facts about whole nights: the same one once, one at a time, and whatever goes wrong, what serves goes on serving."""

from __future__ import annotations

import fcntl
import json
from dataclasses import replace

import numpy as np
import pytest

from bandits.config import ArmConfig
from bandits.durable import locked
from bandits.errors import NotEnoughDataError
from bandits.home import Home
from bandits.learners.frozen import thaw
from bandits.policy import served
from bandits.rollout import giving
from bandits.scheduled import nights
from bandits.scheduled.nights import spend, spend_all
from bandits.settings.rollout import RolloutConfig
from bandits.snapshots.keys import trusted_keys
from bandits.snapshots.loading import load
from bandits.types import Decision, Outcome, Scope
from bandits.warehouse.loading import read_runs
from tests.logs import ARMS, truth
from tests.scheduled.scopes import (
    CONFIG,
    NOW,
    ROWS,
    SCOPE,
    SIDE,
    START,
    assert_spent_once,
    contents,
    filled,
    rows_of,
    state,
    two_scopes,
    versions,
)
from tests.training.rounds import entries


def test_the_same_night_again_changes_nothing_and_says_so(home):
    """No file, no row of the audit, no run, no trial of a search is another; its report is that of the first run."""
    now = START + 5 * 86_400.0 + 3_600.0  # rounds of the last day settle from minute to minute
    first = spend(home, CONFIG, SCOPE, now)
    before = state(home)
    filled(home, [replace(ROWS[0], id="f" * 32, scope=Scope("acme", "main", "other"))])  # another scope is no matter
    again = spend(home, CONFIG, SCOPE, now + 600.0)

    assert (first["verdict"], first["repeated"]) == ("published", False)
    assert state(home) == before
    assert (again["repeated"], again["run_id"]) == (True, first["run_id"])
    assert "The same night" in again["markdown"]
    assert [run["id"] for run in read_runs(home.warehouse, SCOPE)] == [first["run_id"]]


def test_while_the_first_snapshot_is_rolled_out_the_nights_keep_what_serves(home):
    """What the canary shows comes before a newer policy."""
    config = CONFIG.model_copy(update={"rollout": RolloutConfig()})
    first = spend(home, config, SCOPE, NOW)
    order = giving.standing(home, SCOPE)
    filled(home, rows_of([SCOPE], 20))
    second = spend(home, config, SCOPE, NOW + 86_400.0)

    assert (first["verdict"], order.phase, order.stable, order.share) == ("published", "canary", None, 0.5)
    assert second["verdict"] == "kept"
    assert second["reason"].startswith("Snapshot 000001 is being rolled out (canary)")
    assert versions(home) == ["000001"]


@pytest.mark.parametrize("what", ["row", "setting", "settled", "expired"])
def test_another_record_another_setting_or_a_policy_that_is_gone_make_another_night(home, what):
    """One decision more; one setting else; a day on which rounds settled; what was published no longer serves."""
    config, now = CONFIG, START + 5 * 86_400.0 + 3_600.0
    first = spend(home, config, SCOPE, now)
    if what == "row":
        filled(home, [replace(ROWS[0], id="f" * 32)])
    elif what == "setting":
        config = CONFIG.model_copy(update={"night": CONFIG.night.model_copy(update={"trials": 2})})
    else:
        now += {"settled": 1.0, "expired": 31.0}[what] * 86_400.0

    again = spend(home, config, SCOPE, now)

    assert not again["repeated"]
    assert again["run_id"] != first["run_id"]


def test_a_report_tells_of_the_search_the_checks_and_the_card(home):
    """What a person reads, and what the snapshot signs."""
    found = spend(home, CONFIG, SCOPE, NOW)
    manifest = load(home.snapshots, SCOPE, trusted=trusted_keys(home.root), now=NOW).manifest

    assert "- Search: 3 trials." in found["markdown"]
    assert "# Promotion card of acme/main/own" in found["card"]
    assert "- Expected effect: " in found["card"]
    assert [check["ok"] for check in manifest.evidence["checks"]] == [True] * 7
    assert manifest.evidence["night"] == found["night"]
    assert manifest.evidence["tuning"]["parameters"].keys() == {"shared", "own", "correction", "siblings"}


def _rows(what: str) -> list[Decision | Outcome]:
    if what == "nothing":
        return []
    if what == "ten rows":
        return ROWS[:10]
    return [row for row in ROWS if isinstance(row, Decision)]  # nobody ever said how it went


SELDOM = [pytest.param(what, marks=pytest.mark.slow) for what in ("nothing", "ten rows")]


@pytest.mark.parametrize("what", ["no rewards", *SELDOM])
def test_a_night_without_enough_data_keeps_and_says_why(tmp_path, what):
    """A row of the audit, a run, no snapshot; and the next night, with data, publishes."""
    home = filled(Home(tmp_path / "home"), _rows(what))

    found = spend(home, CONFIG, SCOPE, NOW)

    assert (found["verdict"], versions(home)) == ("kept", [])
    assert "needs 200 rounds with a reward" in found["reason"]
    assert spend(home, CONFIG, SCOPE, NOW)["repeated"]
    late = [
        replace(e, id=f"later-{e.id}") for e in entries(600, SCOPE, "vector-2", ARMS, START) if isinstance(e, Decision)
    ]
    told = [Outcome(e.id, e.time + 5.0, SCOPE, quality=0.5, cost_usd=1e-4) for e in late]
    filled(home, [*late, *told])
    assert spend(home, CONFIG, SCOPE, NOW)["verdict"] == "published"


def test_an_arm_that_was_never_drawn_is_on_trial_and_no_obstacle(home):
    """The configuration has a fourth arm that no row of the log knows."""
    new = ArmConfig(name="new", model="new", usd_per_request=1e-4)
    own = CONFIG.domains["own"]
    config = CONFIG.model_copy(update={"domains": {"own": own.model_copy(update={"arms": (*own.arms, new)})}})

    assert spend(home, config, SCOPE, NOW)["verdict"] == "published"

    policy = thaw(load(home.snapshots, SCOPE, trusted=trusted_keys(home.root), now=NOW).frozen)
    rows = served(policy, np.zeros((1, 2), np.float32), np.ones((1, 4), np.bool_))
    assert rows[0, 3] == pytest.approx(0.02 / 4)


def _busy(rows: list[Decision | Outcome], every: int) -> list[Decision | Outcome]:
    """The rows, with each so many-th decision asked for by one user and the others by a hundred."""
    users = {row.id: f"u{i % 100}" for i, row in enumerate(rows) if isinstance(row, Decision)}
    users |= {id_: "mallory" for i, id_ in enumerate(users) if i % every == 0}
    return [replace(row, user=users[row.id]) if isinstance(row, Decision) else row for row in rows]


def test_a_report_tells_how_much_was_left_out_of_how_many_users_and_not_of_whom(tmp_path):
    """In the text, and in what the warehouse keeps; the log is told whole; of nobody a name."""
    home = filled(Home(tmp_path / "home"), _busy(ROWS, 3))
    found = spend(home, CONFIG, SCOPE, NOW)
    log, _ = nights.read_log(home, CONFIG, SCOPE, NOW, {})
    most, made = int(0.05 * len(log)), log.users.count("mallory")

    assert found["left_out"] == {"rounds": made - most, "users": 1}
    assert f"- Left out: {made - most} rounds of 1 user beyond the share" in found["markdown"]
    assert f"- Log: {len(log)} rounds with a reward" in found["markdown"]
    assert "mallory" not in json.dumps(found)
    (run,) = read_runs(home.warehouse, SCOPE)
    assert run["report"]["left_out"] == found["left_out"]
    manifest = load(home.snapshots, SCOPE, trusted=trusted_keys(home.root), now=NOW).manifest
    assert manifest.evidence["left_out"] == found["left_out"]
    assert "mallory" not in str(manifest)


def test_where_everybody_keeps_to_their_share_nothing_is_told_of_it(home):
    """No line; in the data, zeros."""
    found = spend(home, CONFIG, SCOPE, NOW)

    assert found["left_out"] == {"rounds": 0, "users": 0}
    assert "Left out" not in found["markdown"]


def test_a_night_for_which_too_little_is_left_says_how_much_was_left_out(tmp_path):
    """One user made two thirds of the rounds; what is left is fewer than a night needs."""
    rows = [*_busy(ROWS[:600], 3), *(replace(row, user="mallory") for row in ROWS[600:] if isinstance(row, Decision))]
    home = filled(Home(tmp_path / "home"), rows + [row for row in ROWS[600:] if isinstance(row, Outcome)])
    config = CONFIG.model_copy(update={"night": CONFIG.night.model_copy(update={"min_rounds": 300})})
    found = spend(home, config, SCOPE, NOW)

    assert found["verdict"] == "kept"
    assert "needs 300 rounds with a reward" in found["reason"]
    assert "- Left out: " in found["markdown"]
    log, _ = nights.read_log(home, config, SCOPE, NOW, {})
    assert found["rounds"] == len(log) > 300
    with pytest.raises(NotEnoughDataError, match="needs 300 rounds"):
        nights.search(home, config, SCOPE, NOW)


@pytest.mark.slow
def test_one_hostile_user_with_three_rounds_of_ten_moves_the_night_little(tmp_path):
    """They praise the cheap arm whatever it did and damn the others; without the cap the value falls by a tenth."""
    rows = list(entries(2000, SCOPE, "vector-2", ARMS, START))
    rng = np.random.default_rng(7)
    made = {row.id: row for row in rows if isinstance(row, Decision)}
    hostile = {id_ for id_ in made if rng.random() < 0.3}
    asked = [
        replace(row, user="mallory" if row.id in hostile else f"u{int(row.id, 16) % 200}") for row in made.values()
    ]
    heard = [row for row in rows if isinstance(row, Outcome)]
    lied = [
        replace(row, quality=float(made[row.decision_id].action == 0)) if row.decision_id in hostile else row
        for row in heard
    ]
    worth = {}
    for name, told, share in (("clean", heard, 0.05), ("capped", lied, 0.05), ("heard", lied, 1.0)):
        home = filled(Home(tmp_path / name), [*asked, *told])
        config = CONFIG.model_copy(update={"night": CONFIG.night.model_copy(update={"user_share": share})})
        assert spend(home, config, SCOPE, NOW)["verdict"] == "published"
        policy = load(home.snapshots, SCOPE, trusted=trusted_keys(home.root), now=NOW).frozen
        worth[name] = _worth(thaw(policy))

    assert worth["capped"] >= 0.97 * worth["clean"]
    assert worth["heard"] <= 0.9 * worth["clean"]


@pytest.mark.slow
def test_one_hostile_user_in_a_hundred_moves_the_policy_little(tmp_path):
    """They praise the cheap arm whatever it did and damn the others; the value on the truth falls by 2 % at most."""
    worth = []
    rows = list(entries(2000, SCOPE, "vector-2", ARMS, START))
    actions = {row.id: row.action for row in rows if isinstance(row, Decision)}
    for share in (0.0, 0.01):
        rng = np.random.default_rng(7)
        hostile = [isinstance(row, Outcome) and rng.random() < share for row in rows]
        told = [
            replace(row, quality=float(actions[row.decision_id] == 0)) if lies else row
            for row, lies in zip(rows, hostile, strict=True)
        ]
        home = filled(Home(tmp_path / str(share)), told)
        assert spend(home, CONFIG, SCOPE, NOW)["policy"] == "candidate"
        worth.append(_worth(thaw(load(home.snapshots, SCOPE, trusted=trusted_keys(home.root), now=NOW).frozen)))

    assert worth[1] >= 0.98 * worth[0]


def _worth(policy) -> float:

    contexts = np.random.default_rng(99).normal(size=(4000, 2)).astype(np.float32)
    return float((policy.probabilities(contexts, np.ones((4000, 3), np.bool_)) * truth(contexts)).sum(axis=1).mean())


@pytest.mark.slow
def test_two_nights_at_once_are_one(home):
    """Both in processes of their own: one publishes, the other finds the same night spent."""
    found = list(spend_all(home, CONFIG, [SCOPE, SCOPE], NOW, workers=2))

    assert sorted(one["repeated"] for one in found) == [False, True]
    assert found[0]["run_id"] == found[1]["run_id"]
    assert versions(home) == ["000001"]


@pytest.mark.slow
def test_nights_by_two_workers_are_those_by_one_and_none_is_spent_twice(tmp_path):
    """Two scopes with logs of their own: the same contents, one search and one run each, and then nothing."""
    config, scopes, found = two_scopes(), [SCOPE, SIDE], []
    for workers in (1, 2):
        home = filled(Home(tmp_path / str(workers)), rows_of(scopes, 300))
        first = list(spend_all(home, config, scopes, NOW, workers))
        again = list(spend_all(home, config, scopes, NOW, workers))

        assert [(one["scope"], one["verdict"], one["repeated"]) for one in first] == [
            (str(scope), "published", False) for scope in scopes
        ]
        assert [one["repeated"] for one in again] == [True, True]
        assert_spent_once(home, config, scopes)
        found.append(contents(home, scopes))

    assert found[0] == found[1]
    assert len(set(found[0])) == 2, "they had something of their own to learn"


def test_a_night_waits_for_one_that_runs(home):
    """The lock is held for the whole of it."""
    entered = []

    def step(name, function):
        with nights.night_lock(home, SCOPE).open("ab") as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        entered.append(name)
        return function

    spend(home, CONFIG, SCOPE, NOW, step=step)

    assert entered == ["load", "learn", "judge", "publish"]
    with locked(nights.night_lock(home, SCOPE)):
        pass
