"""A finding and the segments that it stands on, with quotations cut around what it is about."""

from __future__ import annotations

from collections.abc import Sequence

from graphs.passage import Segment
from graphs.state import Evidence, Finding, Kind

_SHOWN = 3  # pieces of evidence that a finding quotes; it lists all its segments
_QUOTE_CHARS = 160


def finding(
    kind: Kind, label: str, score: float, segments: Sequence[Segment], members: Sequence[int], about: str
) -> Finding:
    """A finding over `members`, strongest first; its quotations are cut around `about` where they hold it."""
    shown = [segments[i] for i in members[:_SHOWN]]
    evidence = tuple(
        Evidence(one.index, one.name, one.start_s, one.end_s, one.lines, one.speaker, quote(one.text, about))
        for one in shown
    )
    return Finding(kind, label, round(score, 6), tuple(sorted(segments[i].index for i in members)), evidence)


def quote(text: str, about: str, most: int = _QUOTE_CHARS) -> str:
    """At most `most` characters of a text, whole words, with `about` in sight where the text holds it."""
    text = " ".join(text.split())
    if len(text) <= most:
        return text
    at = max(text.casefold().find(about.casefold()), 0)
    start = 0 if at < most // 2 else text.rfind(" ", 0, at - most // 4) + 1
    piece = text[start : start + most - 2]
    if start + len(piece) < len(text):
        piece = piece[: piece.rfind(" ")] if " " in piece[most // 2 :] else piece
        piece += "…"
    return "…" + piece if start else piece
