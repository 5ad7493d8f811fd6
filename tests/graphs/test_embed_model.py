"""Embedders with a model: an OpenAI-compatible server on loopback, the packaged model, and the cache before both."""

from __future__ import annotations

import json
import sqlite3
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import numpy as np
import pytest
from pydantic import ValidationError

from bandits.settings.embedding import EmbeddingConfig
from graphs.embed import HashedSvd
from graphs.embed_model import Http, Packaged
from graphs.equipment import embedder_of
from graphs.errors import EmbedError
from graphs.vectors import Cached


class Server:
    """Counts letters: dimension 3, in a shuffled order, as the protocol allows."""

    def __init__(self):
        self.asked, self.keys, self.status, self.spoil = [], [], 200, lambda data: data

    def answer(self, body):
        texts = body["input"]
        self.asked += texts
        data = [
            {"index": i, "embedding": [1.0 + text.count("a"), text.count("b"), text.count("c")]}
            for i, text in enumerate(texts)
        ]
        return {"object": "list", "data": self.spoil(data[::-1])}


@contextmanager
def serving():
    server = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            server.keys.append(self.headers.get("Authorization"))
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answer = json.dumps(server.answer(body)).encode()
            self.send_response(server.status if self.path == "/v1/embeddings" else 404)
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_):
            pass

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    server.url = f"http://127.0.0.1:{listening.server_port}/v1"
    yield server
    listening.shutdown()
    listening.server_close()


@pytest.fixture
def server():
    with serving() as one:
        yield one


class TestHttp:
    def test_each_text_has_its_own_vector_of_length_one(self, server):
        texts = ["aab", "c", "", *["abc"] * 150]
        encoder = Http(server.url, "letters").fit(texts)
        vectors = encoder.encode(texts)

        assert (encoder.dimension, vectors.shape, vectors.dtype) == (3, (153, 3), np.float32)
        np.testing.assert_allclose(vectors[0], np.array([3, 1, 0]) / np.sqrt(10), rtol=1e-6)
        np.testing.assert_allclose(vectors[1], np.array([1, 0, 1]) / np.sqrt(2), rtol=1e-6)

    def test_the_key_is_read_where_it_is_kept_and_kept_nowhere_else(self, server, monkeypatch):
        monkeypatch.setenv("LETTERS_KEY", "s3cret")
        embedder = Http(server.url, "letters", "LETTERS_KEY")
        encoder = embedder.fit([])

        assert server.keys == ["Bearer s3cret"]
        assert "s3cret" not in repr(embedder) + repr(encoder) + repr(embedder.arrays(encoder))
        monkeypatch.delenv("LETTERS_KEY")
        with pytest.raises(EmbedError, match="LETTERS_KEY, but it is not set"):
            encoder.encode(["a"])

    @pytest.mark.parametrize(
        ("spoil", "says"),
        [
            (lambda data: data[1:], "for each of 2 texts"),
            (lambda data: [{**one, "embedding": [float("nan")]} for one in data], "finite"),
            (lambda data: [{**one, "embedding": []} for one in data], "not empty"),
            (lambda data: [{**data[0], "embedding": [1.0]}, data[1]], "one dimension, but"),
            (lambda data: [{**one, "embedding": [1.0, 2.0]} for one in data], "must have dimension 3, but now have 2"),
            (lambda data: "oops", "did not"),
        ],
    )
    def test_an_answer_that_is_none_is_refused(self, server, spoil, says):
        encoder = Http(server.url, "letters").fit([])
        server.spoil = spoil

        with pytest.raises(EmbedError, match=says):
            encoder.encode(["a", "b"])

    def test_an_error_of_the_server_is_told(self, server):
        server.status = 401
        with pytest.raises(EmbedError, match="answered 401"):
            Http(server.url, "letters").fit([])

    def test_no_server_is_a_transport_error_which_may_pass(self):
        with serving() as gone:
            url = gone.url
        with pytest.raises(httpx.TransportError):
            Http(url, "letters").fit([])

    @pytest.mark.parametrize(("url", "model"), [("ftp://x", "m"), ("", "m"), ("http://x", "")])
    def test_an_address_and_a_model_are_needed(self, url, model):
        with pytest.raises(EmbedError, match="must have an http"):
            Http(url, model)


class TestCache:
    def test_a_text_is_asked_for_once_for_all_time(self, server, tmp_path):
        first = Cached(Http(server.url, "letters"), tmp_path / "v.db").fit([])
        one = first.encode(["ab", "c", "ab"])
        asked = list(server.asked)
        again = Cached(Http(server.url, "letters"), tmp_path / "v.db").fit([]).encode(["c", "ab", "new"])

        assert asked == ["dimension", "ab", "c"]
        assert server.asked[len(asked) :] == ["dimension", "new"]
        np.testing.assert_array_equal(one, again[[1, 0, 1]])

    def test_another_model_has_other_vectors(self, server, tmp_path):
        for model in ("letters", "others"):
            Cached(Http(server.url, model), tmp_path / "v.db").fit([]).encode(["ab"])

        assert server.asked.count("ab") == 2

    def test_a_model_that_changed_its_dimension_is_asked_again(self, server, tmp_path):
        Cached(Http(server.url, "letters"), tmp_path / "v.db").fit([]).encode(["ab"])
        server.spoil = lambda data: [{**one, "embedding": one["embedding"][:2]} for one in data]

        assert Cached(Http(server.url, "letters"), tmp_path / "v.db").fit([]).encode(["ab"]).shape == (1, 2)

    def test_no_text_is_in_the_cache(self, server, tmp_path):
        Cached(Http(server.url, "letters"), tmp_path / "v.db").fit([]).encode(["a secret"])
        with sqlite3.connect(tmp_path / "v.db") as db:
            assert db.execute("SELECT count(*) FROM vectors").fetchone() == (1,)

        assert not any(b"secret" in path.read_bytes() for path in tmp_path.iterdir())

    def test_what_is_fitted_on_each_corpus_cannot_be_cached(self, tmp_path):
        with pytest.raises(EmbedError, match="fitted on each corpus"):
            Cached(HashedSvd(), tmp_path / "v.db")

    def test_nothing_to_encode_is_no_row(self, server, tmp_path):
        assert Cached(Http(server.url, "letters"), tmp_path / "v.db").fit([]).encode([]).shape == (0, 3)


class TestPackaged:
    def test_it_knows_words_that_the_documents_do_not_hold(self):
        pytest.importorskip("wordllama")
        pytest.importorskip("tokenizers")
        encoder = Packaged().fit([])
        vectors = encoder.encode(["the physician treated her", "a doctor helped the patient", "the boat sank", ""])

        assert encoder.dimension == vectors.shape[1] == 256
        assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), [1, 1, 1, 0], atol=1e-5)

    def test_without_the_package_it_says_what_to_install(self, monkeypatch):
        from graphs.embed_model import _wordllama

        _wordllama.cache_clear()
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(EmbedError, match=r"pip install pilotage\[packaged\]"):
            Packaged().fit([])


class TestSettings:
    def test_the_default_needs_nothing(self, tmp_path):
        assert embedder_of(EmbeddingConfig(), tmp_path).name == "hashed-svd"

    def test_a_server_is_cached_under_its_model_and_address(self, tmp_path):
        settings = EmbeddingConfig(backend="http", url="http://localhost:1/v1", model="m")

        assert embedder_of(settings, tmp_path).name == "m@http://localhost:1/v1"

    @pytest.mark.parametrize("settings", [{"backend": "http"}, {"url": "http://x"}, {"backend": "x"}, {"colour": 1}])
    def test_settings_that_do_not_fit_together_are_refused(self, settings):
        with pytest.raises(ValidationError):
            EmbeddingConfig(**settings)
