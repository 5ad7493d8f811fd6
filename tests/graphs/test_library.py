"""The library: each document once, each tenant alone, vectors by one model, and nothing left of what is gone."""

from __future__ import annotations

import threading
from dataclasses import replace

import duckdb
import numpy as np
import pytest

from bandits.errors import InvalidNameError
from graphs.embed import HashedSvd, embed_with
from graphs.errors import EmbedError, LibraryError
from graphs.index import valid_namespace
from graphs.ingest import read
from graphs.library import Library
from graphs.segment import segment
from graphs.state import PilotRequest

ACME, RIVAL = "acme:main:pilot", "rival:main:pilot"
TEXTS = {
    "quiz.txt": "Ninety-four players came to the quiz night on Friday.",
    "scam.txt": "Two members lost their accounts to a phishing scam.",
    "cost.txt": "In October the prompts cost sixty-one dollars.",
    "chat.vtt": "WEBVTT\n\n00:05.000 --> 00:09.000\n<v Ann>The gateway timed out on Sunday.\n",
}


def index_of(names, tenant="acme", run_id="r1", embedder=None, texts=TEXTS):
    state = {"request": PilotRequest(tenant, "main", []), "run_id": run_id}
    state["documents"] = tuple(read((name, texts[name])) for name in names)
    return embed_with(embedder or HashedSvd())({**state, **segment(state)})["index"]


@pytest.fixture
def library(tmp_path):
    return Library(tmp_path / "library.duckdb")


def names(hits):
    return [hit.segment.name for hit in hits]


class TestSearch:
    def test_a_question_finds_its_passage_with_place_and_run(self, library):
        library.put(index_of(TEXTS))
        (hit, *_) = library.search(ACME, "when did the gateway time out")

        one = hit.segment
        assert (one.name, one.start_s, one.end_s, one.speaker, one.lines) == ("chat.vtt", 5.0, 9.0, "Ann", (3, 4))
        assert (one.text, one.speakers, hit.run_id) == ("The gateway timed out on Sunday.", ("Ann",), "r1")

    def test_it_ranks_as_the_index_of_the_run_does(self, library):
        index = index_of(TEXTS)
        library.put(index)

        for query in ("phishing accounts", "players", "dollars in October", "the"):
            here, there = library.search(ACME, query), index.search(query)
            assert names(here) == names(there)
            assert [hit.score for hit in here] == pytest.approx([hit.score for hit in there], abs=1e-5)

    def test_words_that_nobody_said_find_nothing(self, library):
        library.put(index_of(TEXTS))

        assert library.search(ACME, "photosynthesis chlorophyll") == ()

    def test_an_ending_or_a_compound_hides_no_word(self, library):
        library.put(index_of(TEXTS))

        assert names(library.search(ACME, "costing"))[0] == "cost.txt"
        assert names(library.search(ACME, "quizzes"))[0] == "quiz.txt"

    def test_nothing_is_found_across_tenants_or_names(self, library):
        library.put(index_of(TEXTS))
        library.put(index_of(["quiz.txt"], tenant="rival"))

        assert names(library.search(RIVAL, "phishing scam accounts quiz")) == ["quiz.txt"]
        for stranger in ("acme:other:pilot", "acme:main:notes", "nobody:main:pilot"):
            assert library.search(stranger, "quiz night") == ()
            assert library.documents(stranger) == {}
            assert library.texts(stranger) == []

    @pytest.mark.parametrize("query", ["'; DROP TABLE passages; --", "%", "", "\x00", "a" * 10_000, "🙂"])
    def test_a_query_is_words_and_nothing_else(self, library, query):
        library.put(index_of(TEXTS))
        library.search(ACME, query)

        assert len(library.documents(ACME)) == 4

    @pytest.mark.parametrize("namespace", ["acme", "acme:main", "a:b:c:d", "Acme:main:pilot", "acme:main:", "a:b:c'd"])
    def test_a_namespace_is_three_names(self, library, namespace):
        with pytest.raises(InvalidNameError):
            library.search(namespace, "quiz")
        assert valid_namespace(ACME) == ACME


class TestPut:
    def test_putting_again_changes_nothing(self, library):
        library.put(index_of(TEXTS))
        before = library.texts(ACME)
        library.put(index_of(TEXTS, run_id="r2"))

        assert library.texts(ACME) == before
        assert {hit.run_id for hit in library.search(ACME, "the quiz scam")} == {"r1"}

    def test_what_comes_later_is_found_with_the_rest(self, library):
        for number, name in enumerate(TEXTS):
            library.put(index_of([name], run_id=f"r{number}"))

        assert sorted(library.documents(ACME).values()) == sorted(TEXTS)
        for query, name in (("quiz players", "quiz.txt"), ("gateway", "chat.vtt"), ("dollars", "cost.txt")):
            assert names(library.search(ACME, query))[0] == name

    def test_the_embedder_is_fitted_anew_when_the_corpus_has_doubled(self, library):
        library.put(index_of(["quiz.txt"]))
        assert dimension(library) == 1
        library.put(index_of(["scam.txt"]))
        assert dimension(library) == 2
        library.put(index_of(["cost.txt"]))  # three are not twice two
        assert dimension(library) == 2
        library.put(index_of(["chat.vtt"]))
        assert dimension(library) == 4

    def test_vectors_of_another_embedder_are_refused(self, tmp_path, library):
        with pytest.raises(EmbedError, match="must be given its vectors, but got those of 'other'"):
            library.put(replace(index_of(TEXTS), embedder="other"))
        library.put(index_of(TEXTS))

        other = Library(library.path, HashedSvd(name="other"))
        with pytest.raises(EmbedError, match="must be used with its embedder 'hashed-svd', but got 'other'"):
            other.search(ACME, "quiz")
        with pytest.raises(EmbedError, match="must be used with its embedder"):
            other.put(replace(index_of(TEXTS), embedder="other"))

    def test_a_put_that_breaks_leaves_nothing(self, library, monkeypatch):
        library.put(index_of(["quiz.txt"]))
        monkeypatch.setattr("graphs.library_tables._insert_vectors", broken)

        with pytest.raises(RuntimeError):
            library.put(index_of(["scam.txt"]))
        assert list(library.documents(ACME).values()) == ["quiz.txt"]

    def test_threads_take_turns(self, library):
        every = [index_of([name]) for name in TEXTS]
        threads = [threading.Thread(target=library.put, args=(index,)) for index in every]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert sorted(library.documents(ACME).values()) == sorted(TEXTS)


def broken(*_):
    raise RuntimeError("the disk is gone")


def dimension(library):
    with duckdb.connect(str(library.path), read_only=True) as db:
        sizes = {size for (size,) in db.execute("SELECT DISTINCT len(vector) FROM vectors").fetchall()}
    (size,) = sizes
    return size


class TestForget:
    @pytest.mark.parametrize("by", ["name", "id"])
    def test_a_forgotten_document_is_found_no_more_and_leaves_no_word(self, library, by):
        library.put(index_of(TEXTS))
        key = "scam.txt" if by == "name" else next(i for i, n in library.documents(ACME).items() if n == "scam.txt")

        assert library.forget(ACME, key) == 1
        assert "scam.txt" not in names(library.search(ACME, "phishing scam accounts members"))
        assert library.forget(ACME, key) == 0
        with duckdb.connect(str(library.path), read_only=True) as db:
            for table in ("postings", "vectors"):
                orphans = f"SELECT count(*) FROM {table} ANTI JOIN passages USING (namespace, key)"
                assert db.execute(orphans).fetchall() == [(0,)]

    def test_a_forgotten_namespace_leaves_the_others_and_takes_another_embedder(self, library):
        library.put(index_of(TEXTS))
        library.put(index_of(["quiz.txt"], tenant="rival"))

        assert library.forget(ACME) == 4
        assert library.search(ACME, "quiz") == ()
        assert names(library.search(RIVAL, "quiz")) == ["quiz.txt"]
        Library(library.path, HashedSvd(name="other")).put(replace(index_of(["quiz.txt"]), embedder="other"))

    def test_a_document_put_after_it_was_forgotten_is_there_again(self, library):
        library.put(index_of(TEXTS))
        library.forget(ACME, "quiz.txt")
        library.put(index_of(["quiz.txt"]))

        assert names(library.search(ACME, "quiz night"))[0] == "quiz.txt"


class TestFile:
    def test_a_search_before_anything_was_put_finds_nothing_and_makes_no_file(self, library):
        assert library.search(ACME, "quiz") == ()
        assert library.forget(ACME) == 0
        assert not library.path.exists()

    def test_a_file_that_is_none_says_so(self, library):
        library.path.write_bytes(b"not a database" * 1_000)

        with pytest.raises(LibraryError, match="must be a DuckDB file"):
            library.search(ACME, "quiz")

    def test_a_file_of_another_format_says_so(self, library):
        library.put(index_of(TEXTS))
        with duckdb.connect(str(library.path)) as db:
            db.execute("UPDATE format SET version = 99")

        with pytest.raises(LibraryError, match=r"must have format 1, but .* has 99"):
            library.search(ACME, "quiz")

    def test_vectors_are_what_the_embedder_gave(self, library):
        index = index_of(TEXTS)
        library.put(index)
        with duckdb.connect(str(library.path), read_only=True) as db:
            rows = db.execute("SELECT vector FROM vectors ORDER BY key").fetchall()

        np.testing.assert_array_equal(np.array([row for (row,) in rows], dtype=np.float32), index.vectors)
