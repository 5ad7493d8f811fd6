"""A file is written whole, or not at all, and never over another."""

from __future__ import annotations

import os
import resource

import pyarrow.parquet as pq
import pytest

from bandits.errors import InterchangeError
from bandits.interchange import dsjson, parquet, rounds
from tests.interchange.samples import both, lines, sample


class TestWriting:
    @both
    def test_an_export_never_replaces_a_file(self, form, tmp_path):
        """What is there stays, and nothing is left beside it."""
        (tmp_path / "log").write_text("mine")

        with pytest.raises(InterchangeError, match="must not replace a file"):
            form.write(sample(), tmp_path / "log")
        assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"log": "mine"}

    def test_nor_one_that_came_while_it_was_written(self, tmp_path):
        """Whoever put it there first keeps it."""

        def overtaken() -> None:
            with rounds.new_file(tmp_path / "log") as temporary:
                temporary.write_text("ours")
                (tmp_path / "log").write_text("mine")

        with pytest.raises(InterchangeError, match="must not replace a file"):
            overtaken()
        assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"log": "mine"}

    def test_a_cost_that_is_not_known_is_null_for_others(self, tmp_path):
        """Not NaN, which other programs would add up."""
        parquet.write(sample(), tmp_path / "log")

        assert pq.read_table(tmp_path / "log")["cost_usd"].null_count == 1

    @both
    def test_a_full_disk_leaves_nothing(self, form, tmp_path):
        """Not half a file that looks like a whole one."""
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
        try:
            with pytest.raises(InterchangeError, match="must reach the disk"):
                form.write(sample(), tmp_path / "log")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert os.listdir(tmp_path) == []

    @both
    def test_a_folder_or_file_that_is_not_there_says_so(self, form, tmp_path):
        """In the operating system's words."""
        with pytest.raises(InterchangeError, match="No such file"):
            form.write(sample(), tmp_path / "none" / "log")
        with pytest.raises(InterchangeError, match="No such file"):
            form.read(tmp_path / "log")

    @both
    def test_what_would_be_refused_is_not_written(self, form, tmp_path):
        """The first bad round is named, with what is wrong with it."""
        log = sample()
        log.probabilities[4] = 0.5

        with pytest.raises(InterchangeError, match=r"1 are not, first round 4 of id 'é\|3-4': probabilities must be"):
            form.write(log, tmp_path / "log")
        assert os.listdir(tmp_path) == []

    def test_what_vw_reads_stands_in_each_line(self, tmp_path):
        """The words of the format, by hand."""
        dsjson.write(sample(), tmp_path / "log")
        log, line = sample(), lines(tmp_path / "log")[2]
        action = int(log.actions[2])

        assert line["_label_Action"] == line["a"][0] == action + 1
        assert line["_labelIndex"] == action
        assert line["_label_probability"] == line["p"][0] == log.propensities[2]
        assert line["_label_cost"] == -log.rewards[2]
        assert line["Timestamp"] == "2026-09-21T14:13:22.1000000Z"
        assert line["EventId"] == "é|3-2"
        assert [next(iter(arm["arm"])) for arm in line["c"]["_multi"]] == list(log.arms)
        assert line["c"]["context"] == log.contexts[2].tolist()
