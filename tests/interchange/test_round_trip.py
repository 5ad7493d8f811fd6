"""Facts about files of logged feedback: every bit comes back, Vowpal Wabbit agrees, and bad rows are set aside."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings

from bandits.interchange import dsjson
from bandits.interchange.entries import entries
from bandits.record.port import rows
from bandits.record.sql import SqlRecord
from bandits.rewards import feedback as fold_feedback
from bandits.types import Scope
from tests.interchange.samples import GOLDEN, both, logs, same, sample
from tests.logs import domain, simulate


class TestRoundTrip:
    @both
    @settings(max_examples=40, deadline=None)
    @given(log=logs())
    def test_any_log_comes_back_to_the_bit(self, tmp_path_factory, form, log):
        """Contexts, propensities, rewards, costs that are not known, ids in any script."""
        if (log.propensities == 0.0).any() or (form is dsjson and not len(log)):
            return
        path = tmp_path_factory.mktemp("any") / "log"
        form.write(log, path)
        back = form.read(path)

        assert back.quarantined == ()
        if len(log) or form is dsjson:
            assert same(back.feedback, log)
        else:
            assert same(back.feedback, replace(log, contexts=np.zeros((0, 0), np.float32)))

    @both
    def test_what_was_written_once_is_read_for_ever(self, form):
        """Files of format 1, kept: whatever comes later must still read them."""
        name = form.__name__.rpartition(".")[2]
        back = form.read(GOLDEN / f"log.{name}")

        assert back.quarantined == ()
        assert same(back.feedback, sample())

    @both
    def test_a_log_goes_through_the_record_and_comes_back(self, form, tmp_path):
        """Imported into the record as decisions and outcomes, and folded from there: the same log, to the bit."""
        scope, config = Scope("acme", "main", "model_routing"), domain(1.0)
        log = replace(simulate(40, 1), times=1.79e9 + np.arange(40.0), missing=0, position=80)
        form.write(log, tmp_path / "log")
        with SqlRecord(f"sqlite:///{tmp_path / 'record.db'}") as record:
            for pair in entries(form.read(tmp_path / "log").feedback, scope):
                record.append(*pair)
            nobody = replace(log, users=("",) * 40)  # what was imported knows nobody
            assert same(fold_feedback(rows(record), scope, config, 1.8e9), nobody)
