"""A result as Markdown, at most 80 columns wide, for the terminal and for artifacts.

Names and quotations come from documents, so they are shown harmless: no control characters, no markup, no new line.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from graphs.state import PilotResult

WIDTH = 80
_MARKUP = str.maketrans({character: f"\\{character}" for character in "\\`*_[]<>|#"})


def render(result: PilotResult) -> str:
    """The whole result; ends with a new line."""
    return "\n".join(_lines(result)) + "\n"


def _lines(result: PilotResult) -> Iterator[str]:
    yield f"# Pilot run {result.run_id}"
    yield ""
    yield from _wrap(
        f"**{result.status}** in {result.duration_seconds:.2f} s, orchestrator {result.orchestrator}, "
        f"{safe(result.tenant)}/{safe(result.workspace)}."
    )
    if result.error:
        yield ""
        yield from _wrap(f"**{safe(result.error['step'])} failed.** {safe(result.error['reason'])}")
    if result.degradations:
        yield from _heading("Done without")
        for one in result.degradations:
            yield from item(f"{safe(one['event'])}: {safe(one['reason'])}")
    yield from _heading("Steps")
    for event in result.events:
        if event["what"] != "started":
            took = f" in {event['duration_s']:.2f} s" if event["duration_s"] is not None else ""
            why = f" ({safe(event['reason'])})" if event["reason"] else ""
            yield from item(f"{safe(event['step'])} {event['what']}{took}{why}")
    if result.ingest:
        yield from _ingest(result.ingest)
    if result.analysis:
        yield from _analysis(result.analysis)


def _ingest(ingest: Mapping[str, Any]) -> Iterator[str]:
    yield from _heading("Documents")
    for document in ingest["documents"]:
        size = f"{document['characters']:,} characters"
        if document["cues"]:
            size += f", {document['cues']} cues"
            if document["start_s"] is not None:
                size += f", {clock(document['start_s'])}–{clock(document['end_s'])}"
        spoken = ", ".join(safe(name) for name in document["speakers"])
        yield from item(f"{safe(document['name'])}: {document['kind']}, {size}{'; ' + spoken if spoken else ''}")
    for one in ingest["left_out"]:
        yield from item(f"left out: {safe(one['reason'])}")
    for document in ingest["documents"]:
        for note in document["notes"]:
            if not note["lost"]:
                yield from item(f"put right: {safe(document['name'])}: {safe(note['reason'])}")
    for name, earlier, similar in ingest["near_duplicates"]:
        yield from item(f"{safe(name)} says {similar:.0%} of what {safe(earlier)} says")
    for name in ingest["duplicates"]:
        yield from item(f"read once: {safe(name)} repeats another document")


def _analysis(analysis: Mapping[str, Any]) -> Iterator[str]:
    yield from _heading("Summary")
    for finding in analysis["summary"]:
        yield from item(f"{safe(finding['label'])} {', '.join(map(where, finding['evidence']))}")
    author = analysis.get("author")
    if author and author["fault"] is None:
        yield ""
        yield from _wrap(f"By {safe(author['arm'])}, {author['cost_usd']:.6f} USD, decision {author['decision_id']}.")
    yield from _heading("Topics")
    for finding in analysis["topics"]:
        yield from item(f"**{safe(finding['label'])}**, {finding['score']:.0%} of the segments")
        yield from _quotes(finding["evidence"][:2])
    yield from _placed("Key phrases", analysis["key_phrases"])
    yield from _placed("New since earlier documents", analysis["new"])
    yield from _placed("Named", analysis["names"])
    yield from _placed("Claims", analysis["claims"])
    yield from _placed("Questions", analysis["questions"])
    if analysis["speakers"]:
        yield from _heading("Speakers")
    for finding in analysis["speakers"]:
        yield from item(f"{safe(finding['label'])}: {finding['score']:.0%} of what is said")
    yield from _sentiment(analysis)


def _placed(heading: str, findings: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Findings with their places; without any, not even the heading."""
    if findings:
        yield from _heading(heading)
    for finding in findings:
        places = ", ".join(where(one) for one in finding["evidence"])
        yield from item(f"{safe(finding['label'])} {places}")


def _sentiment(analysis: Mapping[str, Any]) -> Iterator[str]:
    yield from _heading("Sentiment")
    score = analysis["sentiment"]
    yield from _wrap(
        f"Overall {'no data' if score is None else f'{score:+.2f}'}; {safe(analysis['method']['sentiment'])}."
    )
    if analysis["sentiments"]:
        yield ""
    for finding in analysis["sentiments"]:
        yield from item(f"**{safe(finding['label'])}**, {len(finding['segments'])} segments")
        yield from _quotes(finding["evidence"])
    for finding in analysis["sentiment_over_time"]:
        yield from item(f"{safe(finding['label'])}: {finding['score']:+.2f} {where(finding['evidence'][0])}")


def _quotes(evidence: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for one in evidence:
        who = f"{safe(one['speaker'])}: " if one["speaker"] else ""
        yield from item(f"{who}“{safe(one['quote'])}” {where(one)}", indent="  ")


def where(evidence: Mapping[str, Any]) -> str:
    """Place of a segment: (name 1:02–1:30), (name, lines 3–9) or (name)."""
    name = safe(evidence["document"])
    if evidence["start_s"] is not None:
        return f"({name} {clock(evidence['start_s'])}–{clock(evidence['end_s'])})"
    if evidence["lines"]:
        return f"({name}, lines {evidence['lines'][0]}–{evidence['lines'][1]})"
    return f"({name})"


def clock(seconds: float) -> str:
    """1:02, or 1:00:02 past an hour; -0:03 before a start that is counted down to."""
    if seconds < 0:
        return f"-{clock(-seconds)}"
    whole = int(seconds)
    minutes = f"{whole // 60 % 60}:{whole % 60:02}"
    return minutes if whole < 3600 else f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


def safe(text: str) -> str:
    """Text of a document as one harmless line: it can neither move a terminal's cursor nor open a tag."""
    blank = "".join(" " if unicodedata.category(character) in ("Cc", "Zl", "Zp") else character for character in text)
    visible = "".join(character for character in blank if unicodedata.category(character) not in ("Cf", "Cs", "Co"))
    return " ".join(visible.split()).translate(_MARKUP)


def _heading(text: str) -> Iterator[str]:
    yield from ("", f"## {text}", "")


def item(text: str, indent: str = "") -> Iterator[str]:
    """Lines of an item of a list."""
    yield from _wrap(text, f"{indent}- ", f"{indent}  ")


def _wrap(text: str, first: str = "", rest: str = "") -> Iterator[str]:
    """Lines of at most WIDTH columns, counting wide characters as two; a word longer than a line is cut."""
    line, used = first, len(first)
    empty = True
    for word in text.split(" "):
        gap = 0 if empty else 1
        if not empty and used + gap + columns(word) > WIDTH:
            yield line
            line, used, gap = rest, len(rest), 0
        line, used = line + " " * gap, used + gap
        for character in word:
            if used + columns(character) > WIDTH:
                yield line
                line, used = rest, len(rest)
            line, used = line + character, used + columns(character)
        empty = False
    yield line


def columns(text: str) -> int:
    """Width on a terminal."""
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in text
    )
