"""What a search found, as Markdown at most 80 columns wide: where, when, by whom, and what was said there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict

from graphs.findings import quote
from graphs.index import Hit
from graphs.keywords import words
from graphs.render import item, safe, where

_QUOTE_CHARS = 320


def render_hits(query: str, hits: Sequence[Hit]) -> str:
    """Best first; ends with a new line."""
    return "\n".join(_lines(query, hits)) + "\n"


def _lines(query: str, hits: Sequence[Hit]) -> Iterator[str]:
    if not hits:
        yield "Nothing was found. Words that stand in no document find none; `pilotage pilot run` reads documents."
    for hit in hits:
        one = hit.segment
        who = f", {safe(', '.join(one.speakers))}" if one.speakers else ""
        yield from item(f"**{hit.score:.2f}** {where({**asdict(one), 'document': one.name})}{who}")
        yield from item(safe(quote(one.text, _about(query, one.text), _QUOTE_CHARS)), "  ")


def _about(query: str, text: str) -> str:
    """The rarest kind of word that query and passage share: the longest."""
    said = set(words(text))
    return max((word for word in words(query) if word in said), key=len, default="")
