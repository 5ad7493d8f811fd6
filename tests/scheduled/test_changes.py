"""Facts about nights after an arm changed: sealed, and on trial again."""

from __future__ import annotations

import numpy as np
import pytest

from bandits.config import Config
from bandits.home import Home
from bandits.learners.frozen import thaw
from bandits.night import changes
from bandits.policy import served
from bandits.record.audit import Audit
from bandits.scheduled.nights import spend
from bandits.snapshots.keys import signing_key, trusted_keys
from bandits.snapshots.loading import load
from tests.logs import simulate
from tests.scheduled.scopes import CONFIG, NOW, SCOPE


class TestChanges:
    """An arm whose model or price is another one is a new arm under an old name."""

    @staticmethod
    def moved(**what) -> Config:
        own = CONFIG.domains["own"]
        arms = tuple(arm.model_copy(update=what) if arm.name == "dear" else arm for arm in own.arms)
        return CONFIG.model_copy(update={"domains": {"own": own.model_copy(update={"arms": arms})}})

    @pytest.mark.parametrize("what", [{"model": "dear-2"}, {"usd_per_request": 5e-3}])
    def test_it_is_sealed_and_the_arm_is_on_trial_again(self, home, what):
        """The incumbent serves on with the arm at its share of the floor, and the audit says what changed."""
        spend(home, CONFIG, SCOPE, NOW)
        again = spend(home, self.moved(**what), SCOPE, NOW + 60.0)

        assert (again["verdict"], again["policy"]) == ("published", "reopened")
        policy = thaw(load(home.snapshots, SCOPE, trusted=trusted_keys(home.root), now=NOW + 60.0).frozen)
        contexts = np.random.default_rng(0).normal(size=(500, 2)).astype(np.float32)
        dear = served(policy, contexts, np.ones((500, 3), np.bool_))[:, 2]
        assert dear == pytest.approx(np.full(500, 0.02 / 3))
        with Audit(home.audit_url) as audit:
            why = [row.content["why"] for row in audit.rows() if row.action == "arms"]
        assert len(why) == 2
        assert "own/dear changed from" in why[1]
        assert "Arms of own that are others than before: dear" in again["markdown"]

    def test_only_draws_since_the_change_count_and_what_is_left_is_a_log(self):
        """Rounds that drew it before are gone, the others are drawn from what is left, later ones are untouched."""

        log = simulate(1000, 0)
        found = changes.since(log, {"dear": 499.0})
        early = found.times <= 499.0

        assert ((found.actions == 2) & early).sum() == 0
        assert (found.actions == 2).sum() == (log.actions[500:] == 2).sum()
        assert found.probabilities[early] == pytest.approx(np.tile([0.5, 0.5, 0.0], (early.sum(), 1)))
        assert found.propensities == pytest.approx(found.probabilities[np.arange(len(found)), found.actions])
        assert (found.probabilities[~early] == [0.4, 0.4, 0.2]).all()
        assert changes.since(log, {}) is log
        assert changes.since(log, {"stranger": 499.0}) is log

    def test_an_arm_that_comes_or_goes_is_no_change_of_an_arm(self, tmp_path):
        """Only what stays under its name and is another."""
        home, key = Home(tmp_path), signing_key(tmp_path)
        own = CONFIG.domains["own"]
        less = CONFIG.model_copy(update={"domains": {"own": own.model_copy(update={"arms": own.arms[:2]})}})
        for at, config in enumerate((CONFIG, less, CONFIG, self.moved(model="dear-2"))):
            rows = changes.note(home, config, key, float(at))

        assert changes.changed(rows, "own") == {"dear": 3.0}
        assert changes.changed(rows, "none") == {}
