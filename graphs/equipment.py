"""What the configuration asks for: the embedder, the library under the home, and the steps that use them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bandits.settings.embedding import EmbeddingConfig
from graphs.analysis import analysis_with
from graphs.embed import Embedder, HashedSvd, HashedSvdEncoder, embed_with
from graphs.embed_model import Http, HttpEncoder, Packaged
from graphs.library import Library
from graphs.steps import Step
from graphs.summary import Summarise
from graphs.vectors import Cached, CachedEncoder

ENCODERS = (HashedSvdEncoder, Packaged, Http, HttpEncoder, CachedEncoder)  # all that an Index can hold


def embedder_of(settings: EmbeddingConfig, home: Path) -> Embedder:
    """The embedder that [embedding] names; vectors that last are cached under the home."""
    if settings.backend == "default":
        return HashedSvd()
    model = Packaged() if settings.backend == "packaged" else Http(settings.url, settings.model, settings.key_env)
    return Cached(model, home / "vectors.db")


def library_of(settings: EmbeddingConfig, home: Path) -> Library:
    """The library of a home."""
    return Library(home / "library.duckdb", embedder_of(settings, home))


def equipped(steps: Sequence[Step], library: Library, summarise: Summarise | None = None) -> tuple[Step, ...]:
    """The same steps: embed as the library does, analyse against what it holds, and let a model write the summary.

    Give the library to run_pilot as its store as well, so that it holds what was read.
    """
    runs = {"embed": embed_with(library.embedder), "analysis": analysis_with(library.texts, summarise)}
    return tuple(replace(step, run=runs.get(step.name, step.run)) for step in steps)
