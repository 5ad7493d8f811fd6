"""How does the pilot's time grow with its documents, what memory does it take, and do broken files stay alone?

    python -m benchmarks.pilot_scale --files 1000

Writes a folder of `--files` seeded documents (notes, Markdown, WebVTT, SRT, JSON transcripts of some 2,000 characters,
each about one of twelve matters), of which 7 in 1,000 are broken (binary, truncated, empty, no captions, wrong JSON, a
kind that cannot be read), and one of a tenth as many. Each is run in a process of its own: all four steps, kept in a
store of runs, as the command line and the service keep them, after one small run that warms caches and imports.

Read it: `seconds` is the run's own duration, `files_per_s` the files over it, `rss_mib` the most memory that the
process ever held (the libraries alone are some 200 MiB), `failed` the documents that were left out. `growth` is the
time of all files over that of a tenth: 10 is linear; the bar is 12. `isolated`: exactly the broken files were left out,
each by its name, and all others were read.

What would make it wrong: files that the page cache does not hold, anything else running on the cores (both sizes
suffer, but not equally: take the least of `--repeats`), documents unlike yours: long ones have more segments each, and
segments, not files, are what the later steps work on.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import sys
import tempfile
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

GROWTH_MAX = 12.0
BROKEN = 0.007
_MATTERS = 12
_WORDS = 60  # of each matter
_SYLLABLES = [consonant + vowel for consonant in "bdklmnrst" for vowel in "aeio"]


def generate(folder: Path, files: int, rng: np.random.Generator) -> list[str]:
    """Write the documents; the names of those that are broken."""
    common = _vocabulary(rng, 120)
    matters = [_vocabulary(rng, _WORDS) for _ in range(_MATTERS)]
    broken = set(rng.choice(files, max(1, round(BROKEN * files)), replace=False).tolist())
    names: list[str] = []
    for number in range(files):
        if number in broken:
            name, data = _BROKEN[len(names) % len(_BROKEN)]
            names.append(f"{number:06}-{name}")
            (folder / names[-1]).write_bytes(data)
            continue
        sentences = _sentences(rng, common, matters[number % _MATTERS])
        ending, write = _KINDS[int(rng.integers(len(_KINDS)))]
        (folder / f"{number:06}{ending}").write_text(write(sentences), encoding="utf-8")
    return names


def measure(files: int, seed: int, orchestrator: str) -> dict[str, Any]:
    """One row, measured in a process of its own."""
    context = multiprocessing.get_context("spawn")
    answer, ask = context.Pipe(duplex=False)
    child = context.Process(target=_measured, args=(files, seed, orchestrator, ask))
    child.start()
    ask.close()
    try:
        row: dict[str, Any] = answer.recv()
    finally:
        child.join()
    return row


def _measured(files: int, seed: int, orchestrator: str, answer: Connection) -> None:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from graphs.pilot import run_pilot  # noqa: PLC0415 - after the number of threads is set
    from graphs.runs import RunStore  # noqa: PLC0415
    from graphs.state import PilotRequest  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "documents"
        folder.mkdir()
        broken = generate(folder, files, np.random.default_rng(seed))
        with RunStore(f"sqlite:///{place}/pilot.db") as runs:
            run: dict[str, Any] = {"orchestrator": orchestrator, "runs": runs}
            run_pilot(PilotRequest("bench", "main", [("a.txt", "One small note.")]), **run)
            result = run_pilot(PilotRequest("bench", "main", [folder]), **run)
    ingest = result.ingest or {"left_out": [], "documents": []}
    left_out = [one["name"] for one in ingest["left_out"]]
    ended = {event["step"]: event["duration_s"] for event in result.events if event["what"] == "completed"}
    answer.send(
        {
            "files": files,
            "seconds": round(result.duration_seconds, 3),
            "files_per_s": round(files / result.duration_seconds, 1),
            "failed": len(left_out),
            "rss_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
            "isolated": sorted(left_out) == sorted(broken) and len(ingest["documents"]) == files - len(broken),
            "segments": result.segment["segments"] if result.segment else 0,
            "step_seconds": {step: round(seconds, 3) for step, seconds in ended.items()},
            "orchestrator": result.orchestrator,
            "status": result.status,
            "seed": seed,
        }
    )


def _vocabulary(rng: np.random.Generator, count: int) -> list[str]:
    return ["".join(rng.choice(_SYLLABLES, int(rng.integers(2, 5))).tolist()) for _ in range(count)]


def _sentences(rng: np.random.Generator, common: Sequence[str], own: Sequence[str]) -> list[str]:
    """Some 25 sentences, a third of whose words are of the document's matter."""
    made = []
    for _ in range(int(rng.integers(20, 30))):
        length = int(rng.integers(8, 16))
        words = np.where(rng.random(length) < 1 / 3, rng.choice(own, length), rng.choice(common, length)).tolist()
        made.append(" ".join([words[0].capitalize(), *words[1:]]) + ".")
    return made


def _text(sentences: Sequence[str]) -> str:
    return "\n\n".join(" ".join(sentences[at : at + 5]) for at in range(0, len(sentences), 5)) + "\n"


def _markdown(sentences: Sequence[str]) -> str:
    parts = [" ".join(sentences[at : at + 6]) for at in range(0, len(sentences), 6)]
    return "\n\n".join(f"## Part {number}\n\n{part}" for number, part in enumerate(parts, start=1)) + "\n"


def _clock(seconds: int, mark: str) -> str:
    return f"00:{seconds // 60:02}:{seconds % 60:02}{mark}000"


def _vtt(sentences: Sequence[str]) -> str:
    cues = [f"{_clock(4 * i, '.')} --> {_clock(4 * i + 3, '.')}\n{one}" for i, one in enumerate(sentences)]
    return "\n\n".join(["WEBVTT", *cues]) + "\n"


def _srt(sentences: Sequence[str]) -> str:
    cues = [f"{i + 1}\n{_clock(4 * i, ',')} --> {_clock(4 * i + 3, ',')}\n{one}" for i, one in enumerate(sentences)]
    return "\n\n".join(cues) + "\n"


def _json(sentences: Sequence[str]) -> str:
    cues = [
        {"start": 4.0 * i, "end": 4.0 * i + 3.0, "text": one, "speaker": f"S{i // 5 % 3}"}
        for i, one in enumerate(sentences)
    ]
    return json.dumps(cues)


_KINDS: tuple[tuple[str, Callable[[Sequence[str]], str]], ...] = (
    (".txt", _text),
    (".md", _markdown),
    (".vtt", _vtt),
    (".srt", _srt),
    (".json", _json),
)
_BROKEN = (
    ("binary.srt", bytes(range(256)) * 8),
    ("empty.txt", b""),
    ("cut.json", b'[{"start": 0.0, "end": 1.0, "text": "It ends in the mid'),
    ("no-captions.vtt", b"This file says nothing of WEBVTT.\n"),
    ("kind.exe", b"MZ\x90\x00"),
    ("blank.md", b" \n\t\n"),
    ("list.json", b'{"colour": "blue"}'),
)


def main(arguments: Sequence[str] | None = None) -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=1_000, help="documents of the large folder, 20 to 100,000")
    parser.add_argument("--repeats", type=int, default=1, help="runs of each size; the quickest counts")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--orchestrator", choices=["langgraph", "sequential"], default="langgraph")
    asked = parser.parse_args(arguments)
    if not 20 <= asked.files <= 100_000:
        parser.error(f"--files must be 20 to 100,000, but got {asked.files}")
    if asked.repeats < 1:
        parser.error(f"--repeats must be 1 or more, but got {asked.repeats}")
    least = {}
    rows = []
    for files in (asked.files // 10, asked.files):
        for repeat in range(asked.repeats):
            print(f"{files} files, run {repeat + 1} of {asked.repeats} ...", file=sys.stderr, flush=True)
            rows.append(measure(files, asked.seed, asked.orchestrator))
            print(json.dumps(rows[-1]), flush=True)
        least[files] = min(row["seconds"] for row in rows if row["files"] == files)
    large = rows[-1]
    growth = least[asked.files] / least[asked.files // 10]
    isolated = all(row["isolated"] for row in rows)
    summary = {
        "summary": True,
        "files": asked.files,
        "seconds": least[asked.files],
        "files_per_s": round(asked.files / least[asked.files], 1),
        "failed": large["failed"],
        "rss_mib": max(row["rss_mib"] for row in rows if row["files"] == asked.files),
        "growth": round(growth, 2),
        "growth_max": GROWTH_MAX,
        "isolated": isolated,
        "met": bool(isolated and growth <= GROWTH_MAX),
    }
    print(json.dumps(summary), flush=True)


if __name__ == "__main__":
    main()
