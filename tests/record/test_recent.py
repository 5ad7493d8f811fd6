"""What a process remembers of its own appends is never told once it was erased, and is bounded."""

from __future__ import annotations

import os
import time

from bandits.record.recent import Recent
from bandits.record.sql import SqlRecord
from bandits.testing.ports import sample_decision, sample_outcome


def test_what_another_process_erased_is_not_remembered(tmp_path):
    """Both have the file open; the writer still has the decision in its memory, and does not tell it."""
    url = f"sqlite:///{tmp_path / 'record.db'}"
    with SqlRecord(url) as writer, SqlRecord(url) as other:
        gone, stays = sample_decision("gone"), sample_decision("stays")
        writer.append(gone, sample_outcome("gone"))
        assert next(iter(writer.recall())).entry is gone  # not decoded

        other.erase(gone.scope.tenant, before=gone.time + 1.0)
        writer.append(stays)

        assert [(row.position, row.entry) for row in writer.recall()] == [(3, stays)]


def test_rows_of_others_stand_between_ones_own(tmp_path):
    """Order and positions are the record's, whoever appended."""
    url = f"sqlite:///{tmp_path / 'record.db'}"
    with SqlRecord(url) as one, SqlRecord(url) as other:
        for number, record in enumerate((one, other, one, other, other, one)):
            record.append(sample_decision(str(number)))

        assert [(row.position, row.entry.id) for row in one.recall(after=1)] == [
            (2, "1"), (3, "2"), (4, "3"), (5, "4"), (6, "5"),
        ]  # fmt: skip


def test_memory_is_bounded_and_of_one_epoch():
    """The oldest go first; what was written in an epoch that has ended is not told."""
    recent = Recent(most=3)
    recent.keep(1, [sample_decision(str(n)) for n in range(5)], epoch=1)

    assert list(recent.between(0, 5, epoch=1)) == [3, 4, 5]
    assert list(recent.between(3, 4, epoch=1)) == [4]
    assert recent.between(0, 5, epoch=2) == {}


def test_the_log_is_copied_without_a_commit_that_waits_for_it(tmp_path):
    """The file of the record grows although the log is far from the length at which a commit copies it."""
    path = tmp_path / "record.db"
    with SqlRecord(f"sqlite:///{path}") as record:
        before = os.path.getsize(path)
        record.append(*(sample_decision(str(number)) for number in range(200)))
        deadline = time.monotonic() + 20.0
        while os.path.getsize(path) == before and time.monotonic() < deadline:
            time.sleep(0.05)

        assert os.path.getsize(path) > before
