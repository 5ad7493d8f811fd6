"""Does the pilot find the passage that answers a question, and better than plain keyword search does?

    python -m benchmarks.pilot --data DIR [DIR…] [--backends default packaged http bm25 tfidf] [--seed 0]

DIR holds documents and `questions.json`: a list of {question, file, line, start_seconds}. All documents of DIR are
ingested and cut into passages of at most 1,000 characters, once and the same for all; `labels.json`, where there is
one, names files that are fixtures, and they are left out. A hit at k: one of the first k passages comes from `file` and
covers `line`, or lies within 60 s of `start_seconds`. `default`, `packaged` and `http` are the product's own embedders,
stored in its library and searched as `pilotage search` does (vectors fused with keywords); `http` asks a server on
loopback that serves the packaged model as OpenAI's would. `bm25` (k1 1.2, b .75) and `tfidf` (cosine, sublinear) rank
the same passages by whole words alone.

Read it: one row for each directory and back end, then the summary over all questions. `paired_difference` is default
minus bm25, question by question, with a 95 % bootstrap interval: where it holds 0, these questions cannot tell the two
apart. `met`: on no directory is default below bm25 by more than one question in 25, at 1 or at 5; over all its MRR is
higher; and another tenant's search finds nothing. `docs_per_s` is ingesting, segmenting, embedding and storing;
`rss_mib` the peak of the process that did it.

What would make it wrong: questions written while looking at one ranking's answers; a line or a time that is off;
documents of one directory that answer another's question; directories that fusion's weights were chosen on (QMSum
and XQuAD, and a first set of 25 questions over transcripts).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from graphs.embed import Embedder, HashedSvd, embed_with
from graphs.embed_model import Http, Packaged
from graphs.ingest import KINDS, ingest
from graphs.keywords import Keywords, bm25, words
from graphs.library import Library
from graphs.passage import Segment
from graphs.segment import MAX_CHARS, segment
from graphs.state import PilotRequest, State
from graphs.vectors import Cached

BACKENDS = ("default", "packaged", "http", "bm25", "tfidf")
MEASURES = ("hit_at_1", "hit_at_5", "mrr")
DEEPEST = 100  # passages that a reciprocal rank looks at
NEAR_S = 60.0
ALLOWED = 1 / 25  # of the questions that default may miss and bm25 find, on one directory
TENANT, STRANGER = "bench", "stranger"

Each = dict[tuple[str, str], dict[str, list[float]]]  # (data, back end): measure: one value a question
Search = Callable[[str], Sequence[Segment]]


@dataclass(frozen=True)
class Question:
    """What is asked, and where the answer stands."""

    text: str
    file: str
    line: int | None
    start_s: float | None

    def answered_by(self, passage: Segment) -> bool:
        """Whether a passage is a hit."""
        if passage.name != Path(self.file).name:
            return False
        if self.line is not None and passage.lines and passage.lines[0] <= self.line <= passage.lines[1]:
            return True
        if self.start_s is None or passage.start_s is None or passage.end_s is None:
            return False
        return passage.start_s - NEAR_S <= self.start_s <= passage.end_s + NEAR_S


def questions_of(folder: Path) -> list[Question]:
    """The questions of a directory."""
    asked = json.loads((folder / "questions.json").read_text())
    return [Question(one["question"], one["file"], one.get("line"), one.get("start_seconds")) for one in asked]


def documents_of(folder: Path) -> list[Path]:
    """Its documents: files of a kind that can be read, and those that a question names wherever they lie."""
    labels = json.loads(path.read_text()) if (path := folder / "labels.json").is_file() else {}
    named = {folder / question.file for question in questions_of(folder)}
    plain = {path for path in folder.iterdir() if path.is_file() and path.suffix.lower() in KINDS}
    others = {path for path in plain if path.stem.casefold() in ("readme", "questions", "labels", "license")}
    fixtures = {folder / name for name, label in labels.items() if "fixture" in str(label)}
    return sorted((plain - others - fixtures) | named)


def prepared(folder: Path) -> State:
    """All documents read and cut."""
    state: State = {"request": PilotRequest(TENANT, "main", documents_of(folder)), "run_id": "benchmark"}
    state |= ingest(state)
    state |= segment(state)
    longest = max(len(one.text) for one in state["segments"])
    if longest > MAX_CHARS:
        raise RuntimeError(f"a passage must have at most {MAX_CHARS} characters, but one has {longest}")
    return state


@contextmanager
def openai_server() -> Iterator[str]:
    """A server on loopback that answers /v1/embeddings with the packaged model; its address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            rows = Packaged().encode(asked["input"])
            data = [{"object": "embedding", "index": i, "embedding": row.tolist()} for i, row in enumerate(rows)]
            body = json.dumps({"object": "list", "model": asked["model"], "data": data}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def searching(backend: str, state: State, home: Path) -> Iterator[tuple[Search, Callable[[str], int]]]:
    """(search, what a stranger finds) of one back end over the passages of a state."""
    if backend in ("bm25", "tfidf"):
        yield _plain(backend, state["segments"]), lambda _: 0
        return
    with openai_server() as url:
        embedder: Embedder
        if backend == "default":
            embedder = HashedSvd()
        else:
            model = Packaged() if backend == "packaged" else Http(url, "packaged")
            embedder = Cached(model, home / "vectors.db")
        library = Library(home / "library.duckdb", embedder)
        library.put(embed_with(embedder)(state)["index"])
        mine, theirs = (PilotRequest(tenant, "main", []).namespace for tenant in (TENANT, STRANGER))
        yield (
            lambda query: [hit.segment for hit in library.search(mine, query, DEEPEST)],
            lambda query: len(library.search(theirs, query, DEEPEST)),
        )


def _plain(backend: str, segments: Sequence[Segment]) -> Search:
    texts = [one.text for one in segments]
    if backend == "bm25":
        keywords = Keywords(texts)
        scores: Callable[[str], Any] = lambda query: bm25(keywords.matching(query, "words"))  # noqa: E731
    else:
        tfidf = TfidfVectorizer(analyzer=words, sublinear_tf=True)
        rows = tfidf.fit_transform(texts)
        scores = lambda query: (rows @ tfidf.transform([query]).T).toarray().ravel()  # noqa: E731
    return lambda query: [segments[i] for i in np.argsort(-scores(query), kind="stable")[:DEEPEST]]


def measured(backend: str, folder: Path) -> dict[str, Any]:
    """A row: one back end on one directory, in a process of its own."""
    start = time.perf_counter()
    state = prepared(folder)
    with tempfile.TemporaryDirectory() as home, searching(backend, state, Path(home)) as (search, stranger):
        took = time.perf_counter() - start
        asked = questions_of(folder)
        ranks = []
        for question in asked:
            found = search(question.text)
            ranks.append(next((i for i, one in enumerate(found, start=1) if question.answered_by(one)), None))
        leaked = sum(stranger(question.text) for question in asked)
    each = {
        "hit_at_1": [float(rank == 1) for rank in ranks],
        "hit_at_5": [float(rank is not None and rank <= 5) for rank in ranks],
        "mrr": [1.0 / rank if rank else 0.0 for rank in ranks],
    }
    return {
        "backend": backend,
        **{name: round(float(np.mean(values)), 4) for name, values in each.items()},
        "questions": len(asked),
        "documents": len(state["documents"]),
        "left_out": len(state["left_out"]),
        "passages": len(state["segments"]),
        "docs_per_s": round(len(state["documents"]) / took, 2),
        "rss_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "cross_tenant_hits": leaked,
        "each": each,
    }


def summary(rows: Sequence[dict[str, Any]], each: Each, seed: int) -> dict[str, Any]:
    """The last line: over all questions of all directories."""
    folders = list(dict.fromkeys(row["data"] for row in rows))
    backends = list(dict.fromkeys(row["backend"] for row in rows))
    together = {
        backend: {m: np.concatenate([each[folder, backend][m] for folder in folders]) for m in MEASURES}
        for backend in backends
    }
    found: dict[str, Any] = {
        "summary": True,
        "backends": {
            backend: {
                **{m: round(float(values[m].mean()), 4) for m in MEASURES},
                "docs_per_s": min(row["docs_per_s"] for row in rows if row["backend"] == backend),
                "rss_mib": max(row["rss_mib"] for row in rows if row["backend"] == backend),
            }
            for backend, values in together.items()
        },
        "questions": len(next(iter(together.values()))["mrr"]),
        "cross_tenant_hits": sum(row["cross_tenant_hits"] for row in rows),
    }
    if {"default", "bm25"} <= set(backends):
        gaps = {m: together["default"][m] - together["bm25"][m] for m in MEASURES}
        found["paired_difference"] = {m: round(float(gap.mean()), 4) for m, gap in gaps.items()}
        found["interval"] = {m: interval(gap, seed) for m, gap in gaps.items()}
        worst = min(
            float(np.mean(each[folder, "default"][m]) - np.mean(each[folder, "bm25"][m]))
            for folder in folders
            for m in ("hit_at_1", "hit_at_5")
        )
        found["worst_directory"] = round(worst, 4)
        found["met"] = bool(worst >= -ALLOWED - 1e-9 and gaps["mrr"].mean() > 0 and found["cross_tenant_hits"] == 0)
    return found


def interval(gaps: np.ndarray[Any, np.dtype[np.float64]], seed: int) -> list[float]:
    """95 % percentile bootstrap interval of a mean, over questions."""
    rng = np.random.default_rng(seed)
    means = rng.choice(gaps, (10_000, len(gaps))).mean(axis=1)
    return [round(float(edge), 4) for edge in np.quantile(means, [0.025, 0.975])]


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print rows as they are known, then the summary."""
    parser = argparse.ArgumentParser(prog="benchmarks.pilot", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--data", type=Path, nargs="+", required=True, metavar="DIR")
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=list(BACKENDS))
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    options = parser.parse_args(argv)
    for folder in options.data:
        if not (folder / "questions.json").is_file():
            parser.error(f"--data must name folders with a questions.json, but {folder} has none")
    short = [folder.resolve().name for folder in options.data]
    rows = []
    each = {}
    for folder, name in zip(options.data, short, strict=True):
        label = name if short.count(name) == 1 else str(folder)
        for backend in options.backends:
            print(f"{label}: {backend}", file=sys.stderr)
            with multiprocessing.get_context("spawn").Pool(1) as pool:  # its own memory, so that peaks compare
                row = {"data": label, **pool.apply(measured, (backend, folder.resolve()))}
            each[row["data"], backend] = row.pop("each")
            rows.append(row)
            print(json.dumps(row), flush=True)
    print(json.dumps(summary(rows, each, options.seed)), flush=True)


if __name__ == "__main__":
    main()
