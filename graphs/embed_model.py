"""Embedders with a language model behind them: a small one inside a Python package, and any OpenAI-compatible server.

Neither is fitted on the texts, so vectors of all runs compare, and each is computed once for all time (vectors.py).
"""

from __future__ import annotations

import functools
import importlib.util
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from graphs.embed import Arrays
from graphs.errors import EmbedError
from graphs.index import Encoder, Vectors, unit

_BATCH = 64  # texts in one request
_TIMEOUT_S = 30.0
_LARGEST = 64 * 2**20  # bytes of an answer


@dataclass(frozen=True)
class Packaged:
    """WordLlama's word vectors, which lie inside its wheel: the mean over the tokens of a text. Nothing is downloaded.

    The optional extra `packaged` installs it. The package is MIT; its vectors were distilled from the token embeddings
    of larger models, whose own licences are for whoever uses them to weigh.
    """

    name: str = "wordllama-l2-256"
    fitted: bool = False

    @property
    def dimension(self) -> int:
        """Length of each vector."""
        return int(_wordllama()[0].shape[1])

    def encode(self, texts: Sequence[str]) -> Vectors:
        """See Encoder."""
        table, tokenizer = _wordllama()
        vectors = np.zeros((len(texts), table.shape[1]), dtype=np.float32)
        for i, text in enumerate(texts):
            ids = tokenizer.encode(text, add_special_tokens=False).ids
            if ids:
                vectors[i] = table[ids].mean(axis=0)
        return unit(vectors)

    def fit(self, texts: Sequence[str]) -> Encoder:
        """Itself. Raises EmbedError if the package is missing."""
        _wordllama()
        return self

    def arrays(self, encoder: Encoder) -> Arrays:
        """Nothing is fitted."""
        return {}

    def load(self, arrays: Arrays) -> Encoder:
        """See Embedder."""
        return self.fit(())


@functools.cache
def _wordllama() -> tuple[np.ndarray[Any, Any], Any]:
    """Its table and its tokeniser, by their files: its own loader would go to the network for the second."""
    found = importlib.util.find_spec("wordllama")
    if found is None or not found.submodule_search_locations or importlib.util.find_spec("tokenizers") is None:
        raise EmbedError(
            "the packaged embedder needs the packages wordllama and tokenizers, but one is not installed; "
            "run `pip install pilotage[packaged]`, or choose another embedder."
        )
    from safetensors.numpy import load_file  # noqa: PLC0415 - only this embedder needs them
    from tokenizers import Tokenizer  # noqa: PLC0415

    folder = Path(next(iter(found.submodule_search_locations)))
    table = load_file(folder / "weights" / "l2_supercat_256.safetensors")["embedding.weight"].astype(np.float32)
    return table, Tokenizer.from_file(str(folder / "tokenizers" / "l2_supercat_tokenizer_config.json"))


@dataclass(frozen=True)
class Http:
    """A server that answers POST {url}/embeddings as OpenAI's does.

    key_env: the environment variable that holds its key, "" for none; the key itself is kept nowhere.
    """

    url: str
    model: str
    key_env: str = ""
    fitted: bool = False

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")) or not self.model:
            raise EmbedError(
                f"an embeddings server must have an http(s) address and a model, but got {self.url!r} and "
                f"{self.model!r}; set url and model of [embedding]."
            )

    @property
    def name(self) -> str:
        """The model at its server."""
        return f"{self.model}@{self.url}"

    def fit(self, texts: Sequence[str]) -> Encoder:
        """An encoder of this server; asks it once for its dimension."""
        return HttpEncoder(self, self.ask(["dimension"]).shape[1])

    def arrays(self, encoder: Encoder) -> Arrays:
        """Its dimension."""
        return {"dimension": np.array([encoder.dimension])}

    def load(self, arrays: Arrays) -> Encoder:
        """See Embedder."""
        return HttpEncoder(self, int(arrays["dimension"][0]))

    def ask(self, texts: Sequence[str]) -> Vectors:
        """(n, dimension) unit vectors. Raises EmbedError on a bad answer, httpx.TransportError on none."""
        headers = {}
        if self.key_env:
            if not os.environ.get(self.key_env):
                raise EmbedError(f"the key must be in the environment variable {self.key_env}, but it is not set.")
            headers["Authorization"] = f"Bearer {os.environ[self.key_env]}"
        rows: list[Any] = []
        with httpx.Client(timeout=_TIMEOUT_S, headers=headers, trust_env=False) as client:
            for start in range(0, len(texts), _BATCH):
                rows += self._batch(client, texts[start : start + _BATCH])
        if len({len(row) for row in rows}) > 1:
            sizes = sorted({len(row) for row in rows})
            raise EmbedError(f"vectors of one model must have one dimension, but {self.name} gave {sizes}.")
        return unit(np.array(rows, dtype=np.float64).reshape(len(rows), -1))

    def _batch(self, client: httpx.Client, texts: Sequence[str]) -> list[list[float]]:
        body = {"model": self.model, "input": list(texts), "encoding_format": "float"}
        answer = client.post(f"{self.url.rstrip('/')}/embeddings", json=body)
        if answer.status_code != httpx.codes.OK or len(answer.content) > _LARGEST:
            raise EmbedError(
                f"an embeddings server must answer 200, but {self.name} answered {answer.status_code} with "
                f"{len(answer.content)} bytes ({answer.text[:200]!r}); check its address, model and key."
            )
        try:
            rows = {int(one["index"]): [float(x) for x in one["embedding"]] for one in answer.json()["data"]}
            found = [rows[i] for i in range(len(texts))]
        except (ValueError, KeyError, TypeError) as error:
            raise EmbedError(
                f"an embeddings server must answer data with index and embedding for each of {len(texts)} texts, but "
                f"{self.name} did not ({type(error).__name__}: {error}); check that it speaks OpenAI's /embeddings."
            ) from None
        if not all(row and all(map(math.isfinite, row)) for row in found):
            raise EmbedError(f"vectors must be finite and not empty, but {self.name} gave others; check its model.")
        return found


@dataclass(frozen=True)
class HttpEncoder:
    """A server, and the dimension that it had when it was first asked."""

    server: Http
    dimension: int

    def encode(self, texts: Sequence[str]) -> Vectors:
        """See Encoder. Raises EmbedError if the dimension is another by now."""
        if not texts:
            return np.zeros((0, self.dimension), dtype=np.float32)
        vectors = self.server.ask(texts)
        if vectors.shape[1] != self.dimension:
            raise EmbedError(
                f"vectors of {self.server.name} must have dimension {self.dimension}, but now have "
                f"{vectors.shape[1]}; it is another model: store under another name, or embed everything anew."
            )
        return vectors
