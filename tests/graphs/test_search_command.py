"""`pilotage search`, and the benchmark of retrieval, as they are run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

import commands.content  # noqa: F401 - registers the commands
from benchmarks.pilot import Question, documents_of, main
from commands.table import app
from graphs.hits import render_hits
from graphs.index import Hit
from graphs.passage import Segment
from graphs.render import WIDTH, columns

ROOT = Path(__file__).parents[2]


@pytest.fixture
def home(tmp_path, monkeypatch):
    shutil.copy(ROOT / "pilotage.toml", tmp_path)
    monkeypatch.setenv("PILOTAGE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PILOTAGE_CONFIG", str(tmp_path / "pilotage.toml"))
    monkeypatch.setenv("PILOTAGE_ORCHESTRATOR", "sequential")
    return tmp_path


class TestCommand:
    def test_what_a_run_read_is_found_by_a_search(self, home):
        assert CliRunner().invoke(app, ["search", "quiz night"]).exit_code == 1  # nothing was read yet
        assert CliRunner().invoke(app, ["pilot", "run"]).exit_code == 0

        found = CliRunner().invoke(app, ["search", "how many players came to the quiz", "--json", "-k", "3"])
        hits = json.loads(found.output)
        assert len(hits) == 3
        assert any("Ninety-four players" in hit["segment"]["text"] for hit in hits)
        shown = CliRunner().invoke(app, ["search", "how many players came to the quiz"]).output
        assert "standup.vtt" in shown
        assert "Ninety-four players" in " ".join(shown.split())

    def test_another_workspace_is_refused(self, home):
        assert CliRunner().invoke(app, ["search", "quiz", "--tenant", "nobody"]).exit_code != 0


class TestHits:
    def test_a_hit_is_shown_harmless_and_narrow(self):
        segment = Segment(0, "d", "a<b>.txt", "x " * 400 + "\x1b[31mthe needle\x1b[0m " + "y " * 400, 3.0, 9.0)
        text = render_hits("needle", [Hit(segment, 0.5, "r")])

        assert "the needle" in " ".join(text.split())
        assert "\x1b" not in text
        assert max(columns(line) for line in text.splitlines()) <= WIDTH


class TestBenchmark:
    @pytest.mark.parametrize(
        ("place", "hit"),
        [
            ({"lines": (1, 5)}, True),
            ({"lines": (6, 9)}, False),
            ({"lines": (6, 9), "start_s": 160.0, "end_s": 200.0}, True),
            ({"lines": (6, 9), "start_s": 161.0, "end_s": 200.0}, False),
            ({"start_s": 10.0, "end_s": 40.0}, True),
            ({"start_s": 10.0, "end_s": 39.0}, False),
        ],
    )
    def test_a_hit_covers_the_line_or_lies_within_a_minute(self, place, hit):
        question = Question("?", "a.txt", 5, 100.0)

        assert question.answered_by(Segment(0, "d", "a.txt", "text", **place)) is hit
        assert not question.answered_by(Segment(0, "d", "b.txt", "text", **place))

    def test_it_measures_each_back_end_and_tells_the_difference(self, tmp_path, capfd):
        for name, text in (("cat.txt", "The cat sleeps."), ("dog.txt", "The dog barks."), ("old.txt", "A fixture.")):
            (tmp_path / name).write_text(text)
        asked = [
            {"question": "who barks", "file": "dog.txt", "line": 1},
            {"question": "sleeps", "file": "cat.txt", "line": 1},
        ]
        (tmp_path / "questions.json").write_text(json.dumps(asked))
        (tmp_path / "labels.json").write_text(json.dumps({"old.txt": "fixture"}))
        main(["--data", str(tmp_path), "--backends", "default", "bm25"])
        rows = [json.loads(line) for line in capfd.readouterr().out.splitlines()]

        assert [path.name for path in documents_of(tmp_path)] == ["cat.txt", "dog.txt"]
        assert [(row["backend"], row["hit_at_1"], row["documents"]) for row in rows[:2]] == [
            ("default", 1.0, 2),
            ("bm25", 1.0, 2),
        ]
        assert rows[2]["summary"]
        assert rows[2]["paired_difference"] == {"hit_at_1": 0.0, "hit_at_5": 0.0, "mrr": 0.0}
        assert rows[2]["met"] is False  # not better than bm25

    def test_a_folder_without_questions_is_a_usage_error(self, tmp_path, capsys):
        with pytest.raises(SystemExit):
            main(["--data", str(tmp_path)])
        assert "questions.json" in capsys.readouterr().err
