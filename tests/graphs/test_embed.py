"""Vectors and search: unit length, the same every time, and nothing across namespaces."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from graphs import EXAMPLE
from graphs.embed import HashedSvd, embed_with
from graphs.errors import EmbedError
from graphs.index import Index, VectorStore
from graphs.ingest import read
from graphs.passage import Segment
from graphs.segment import segment
from graphs.state import PilotRequest

NAMESPACE = "acme:main:pilot"


def index_of(*items, tenant="acme", run_id="r1"):
    state = {"request": PilotRequest(tenant, "main", items), "run_id": run_id}
    state["documents"] = tuple(read(item) for item in items)
    return embed_with(HashedSvd())({**state, **segment(state)})["index"]


@pytest.fixture(scope="module")
def standup():
    return index_of(EXAMPLE)


class TestVectors:
    def test_vectors_are_float32_of_length_one(self, standup):
        assert standup.vectors.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(standup.vectors, axis=1), 1.0, atol=1e-5)

    def test_the_same_texts_give_the_same_vectors(self, standup):
        np.testing.assert_array_equal(index_of(EXAMPLE).vectors, standup.vectors)

    def test_the_number_of_threads_changes_no_bit(self):
        rng = np.random.default_rng(0)
        words = np.array([f"word{i}" for i in range(2_000)])
        segments = tuple(Segment(i, "id", "a", " ".join(rng.choice(words, 20))) for i in range(700))
        state = {"request": PilotRequest("acme", "main", []), "run_id": "r", "segments": segments}
        bits = []
        for threads in (1, 2):
            with threadpool_limits(limits=threads):
                bits.append(embed_with(HashedSvd())(state)["index"].encoder.components.tobytes())

        assert bits[0] == bits[1]

    @pytest.mark.parametrize(
        "texts", [["alone"], ["..."], ["...", "!!!"], ["same"] * 40, ["", "word"], ["猫がすき", "犬がすき"]]
    )
    def test_tiny_and_wordless_corpora_have_finite_vectors(self, texts):
        encoder = HashedSvd().fit(texts)
        vectors = encoder.encode(texts)

        assert vectors.shape == (len(texts), encoder.dimension)
        assert np.isfinite(vectors).all()
        assert set(np.linalg.norm(vectors, axis=1).round(3).tolist()) <= {0.0, 1.0}

    def test_the_dimension_is_capped(self):
        assert HashedSvd(3).fit([f"word{i} and word{i + 1}" for i in range(20)]).dimension == 3

    def test_nothing_to_fit_is_an_error(self):
        with pytest.raises(EmbedError, match="at least 1 text, but got none"):
            HashedSvd().fit([])


class TestSearch:
    @pytest.mark.parametrize(
        ("query", "said"),
        [
            ("which members lost their accounts to the scam", "Two members lost their accounts"),
            ("timeout set in minutes but read as seconds", "A timeout in the gateway"),
            ("how many players and teams came to the quiz", "Ninety-four players"),
            ("dollars paid for prompts in October", "sixty-one dollars"),
            ("why do newcomers leave", "Half of the newcomers leave"),
            ("volunteers as mentors", "Eight volunteers"),
        ],
    )
    def test_a_question_finds_the_passage_that_answers_it(self, standup, query, said):
        assert said in standup.search(query, k=1)[0].segment.text

    def test_hits_come_best_first_and_never_more_than_asked(self, standup):
        scores = [hit.score for hit in standup.search("the quiz night", k=4)]

        assert len(scores) == 4
        assert scores == sorted(scores, reverse=True)
        assert standup.search("the quiz night", k=0) == ()

    def test_words_that_nobody_said_find_nothing(self, standup):
        assert standup.search("photosynthesis chlorophyll") == ()

    def test_a_passage_finds_itself(self, standup):
        for one in standup.segments:
            assert standup.search(one.text, k=1)[0].segment == one


class TestDimension:
    def test_vectors_of_another_dimension_are_refused(self, standup):
        with pytest.raises(EmbedError, match=r"must have shape .* but got"):
            replace(standup, vectors=standup.vectors[:, :-1])

    def test_a_vector_is_needed_for_each_segment(self, standup):
        with pytest.raises(EmbedError, match="must have shape"):
            replace(standup, segments=standup.segments[1:])

    def test_a_query_of_another_dimension_is_refused(self, standup):
        class Drifting:
            dimension = standup.encoder.dimension

            def encode(self, texts):
                return np.ones((len(texts), 7), dtype=np.float32)

        index = Index(NAMESPACE, "r", "drifting", Drifting(), standup.segments, standup.vectors)
        with pytest.raises(EmbedError, match="query vector must have shape"):
            index.search("anything")


class TestStore:
    def test_a_search_sees_its_own_namespace_only(self, standup):
        store = VectorStore()
        store.put(standup)

        assert store.search(NAMESPACE, "quiz night")
        for foreign in ("acme:other:pilot", "other:main:pilot", "acme:main", ""):
            assert store.search(foreign, "quiz night") == ()
            assert store.search(foreign, "quiz night", run_id=standup.run_id) == ()

    def test_two_tenants_with_the_same_words_see_their_own_document(self):
        store = VectorStore()
        store.put(index_of(("a.txt", "The secret plan of acme."), run_id="r1"))
        store.put(index_of(("b.txt", "The secret plan of rival."), tenant="rival", run_id="r1"))

        assert [hit.segment.name for hit in store.search("acme:main:pilot", "secret plan")] == ["a.txt"]
        assert [hit.segment.name for hit in store.search("rival:main:pilot", "secret plan")] == ["b.txt"]

    def test_the_newest_run_is_searched_unless_another_is_named(self):
        store = VectorStore()
        store.put(index_of(("old.txt", "The plan."), run_id="r1"))
        store.put(index_of(("new.txt", "The plan."), run_id="r2"))

        assert store.search(NAMESPACE, "plan")[0].segment.name == "new.txt"
        assert store.search(NAMESPACE, "plan", run_id="r1")[0].segment.name == "old.txt"
        assert store.search(NAMESPACE, "plan", run_id="r3") == ()

    def test_the_oldest_run_makes_room(self):
        store = VectorStore(keep=2)
        for run in ("r1", "r2", "r3"):
            store.put(index_of(("a.txt", "The plan."), run_id=run))

        assert store.search(NAMESPACE, "plan", run_id="r1") == ()
        assert store.search(NAMESPACE, "plan", run_id="r2")
