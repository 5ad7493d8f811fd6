"""Fact: a night that began before an erasure publishes nothing of what it learned."""

from __future__ import annotations

import numpy as np

from bandits.home import Home
from bandits.ids import IdRing
from bandits.night import night
from bandits.privacy import erasing as privacy
from bandits.record.audit import Audit
from bandits.router import Router
from bandits.scheduled.nights import publish
from bandits.snapshots.loading import latest
from bandits.types import Outcome
from bandits.warehouse.loading import load, read_feedback
from tests.privacy.test_erasing import CONFIG, HERE, NOW


def test_a_night_that_an_erasure_overtakes_keeps_what_serves(tmp_path):
    """It learned from the person; the same night in the new epoch publishes."""
    home, rng = Home(tmp_path), np.random.default_rng(0)
    ada = IdRing(home.root).pseudonym("acme", "Ada")
    domain, settings = CONFIG.domains["own"], CONFIG.night.model_copy(update={"trials": 1})
    with home.open_record() as record:
        router = Router(HERE, domain, record, rng, lambda: NOW)
        for i in range(400):
            decision = router.decide(rng.normal(size=2).astype(np.float32), user=ada if i % 10 == 0 else "")
            router.report(Outcome(decision.id, NOW, HERE, quality=float(rng.random()), cost_usd=1e-4))
        began = record.epoch().number
        load(record, home.warehouse)
    learned = night.learn(read_feedback(home.warehouse, HERE, domain, NOW), domain, settings)
    judged = night.judge(learned, settings)
    assert privacy.erase(home, CONFIG, "acme", ada, NOW).epoch == began + 1

    late = publish(home, CONFIG, "run-1", learned, judged, HERE, NOW, began)

    assert (late.verdict, latest(home.snapshots, HERE)) == ("kept", None)
    assert "erasure began a new epoch" in late.reason
    assert [row.action for row in Audit(home.audit_url).rows("acme")] == ["erasure", "kept"]
    assert publish(home, CONFIG, "run-2", learned, judged, HERE, NOW, began + 1).verdict == "published"
