"""Facts about trials in backups: a candidate is judged on in the new home, unless who it learned from was erased."""

from __future__ import annotations

import numpy as np
import pytest

from bandits.backups.restore import restore
from bandits.config import load_config
from bandits.home import Home
from bandits.learners.baselines import ContextFree
from bandits.night import judging
from bandits.privacy import erasing as privacy
from bandits.scheduled import nights
from bandits.snapshots.keys import signing_key
from bandits.types import Scope
from tests.backups.home import DAY, HERE, NOW, TOML, back_up, config_of, person, tree

SIDE = Scope("acme", "side", "own")
SHARED = TOML.replace("[tenants.acme]", '[tenants.acme]\nworkspaces = ["main", "side"]').replace(
    "[night]", "[night]\nshare = true"
)


def put_on_trial(home: Home, scope: Scope = HERE) -> None:
    """The cheap arm, whatever comes."""
    cheap = ContextFree(
        "fixed", ("cheap", "dear"), "vector-2", np.array([1.0, 0.0]), np.array([1e-4, 1e-3]), 1e-2, 0.02
    )
    judging.register(
        home, scope, cheap, config_of(home).domains["own"], against="000001", number=3, horizon=500,
        position=240, now=NOW - 95.0, expires=NOW + 60 * DAY, key=signing_key(home.root),
    )  # fmt: skip


def test_the_next_night_judges_a_trial_on(home, tmp_path):
    """With the verdict, and the words, of the night that the old home would have had."""
    put_on_trial(home)
    folder = back_up(home, tmp_path / "backups").path

    restore(folder, tmp_path / "new", NOW)

    again, config = Home(tmp_path / "new"), config_of(home)
    assert tree(again.trials) == tree(home.trials) != {}
    reports = [nights.spend(one, config, HERE, NOW + 10 * DAY) for one in (home, again)]
    for report in reports:
        assert report["verdict"] == "kept", report
    assert reports[0]["reason"] == reports[1]["reason"]
    assert reports[0]["detail"]["gate"] == reports[1]["detail"]["gate"]
    assert reports[0]["detail"]["gate"]["n"] > 0
    trials = [judging.standing(one, HERE, config.domains["own"], "000001", NOW + 10 * DAY) for one in (home, again)]
    assert {(one.number, one.version, one.fixed) for one in trials if one} == {(3, "000001", NOW - 95.0)}


@pytest.mark.parametrize("share", [True, False])
def test_no_trial_comes_back_that_learned_from_whoever_was_erased_since(home, tmp_path, share):
    """Nor one that leaned on her rows from a sibling scope, where scopes may lean on each other."""
    toml = home.root.parent / "pilotage.toml"
    toml.write_text(SHARED if share else SHARED.replace("share = true", ""))
    for scope in (HERE, SIDE, Scope("rival", "main", "own")):
        put_on_trial(home, scope)
    folder = back_up(home, tmp_path / "backups").path
    privacy.erase(home, load_config(toml), "acme", person(home), NOW)

    restore(folder, tmp_path / "new", NOW)

    left = sorted(path.parent.relative_to(home.trials) for path in home.trials.rglob("manifest.json"))
    assert [str(path) for path in left] == [*([] if share else ["acme/side/own/000001"]), "rival/main/own/000001"]
    assert tree(Home(tmp_path / "new").trials) == tree(home.trials)
