"""What a fetched page says: an article's text, a feed's entries, captions and plain text as they are.

Each becomes an input (name, text) like any other; the name is the address, with the ending of what it now is.
"""

from __future__ import annotations

import calendar
import io
import re
from collections.abc import Callable, Iterator
from typing import Any

from graphs.errors import IngestError
from graphs.fetch import Guard, Page, fetch, shown

Fetch = Callable[[str, Guard | None], Page]
MOST_ENTRIES = 50  # of a feed, the newest
_FEEDS = ("application/rss+xml", "application/atom+xml", "application/rdf+xml", "application/feed+json")
_FEED = re.compile(rb"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*<(rss|feed|rdf:RDF)\b", re.DOTALL)
_AS_THEY_ARE = {
    "text/vtt": ".vtt",
    "application/x-subrip": ".srt",
    "text/markdown": ".md",
    "text/tab-separated-values": ".tsv",
    "application/json": ".json",
}
_ENDINGS = (".vtt", ".srt", ".md", ".json", ".tsv")


def is_address(item: object) -> bool:
    """Whether an input is to be fetched."""
    return isinstance(item, str) and re.match(r"[a-z][a-z0-9+.-]*://", item, re.IGNORECASE) is not None


def documents(url: str, guard: Guard | None = None, fetch_page: Fetch = fetch) -> Iterator[tuple[str, str]]:
    """(name, text) of what stands at an address: one for a page, one for each entry of a feed. Raises IngestError."""
    page = fetch_page(url, guard)
    name = shown(page.url).partition("://")[2].rstrip("/")
    if page.content_type in _FEEDS or _FEED.match(page.body[:4_096]):
        yield from _entries(name, page)
        return
    ending = _ending(page, name)
    if page.content_type in ("text/html", "application/xhtml+xml"):
        yield f"{name}.md", _article(name, page)
    else:
        yield name if name.endswith(ending) else name + ending, _decoded(name, page)


def _ending(page: Page, name: str) -> str:
    """The ending that says what a page is: by its address where the server says no more than that it is text."""
    if page.content_type in _AS_THEY_ARE:
        return _AS_THEY_ARE[page.content_type]
    return next((ending for ending in _ENDINGS if name.lower().endswith(ending)), ".txt")


def _decoded(name: str, page: Page) -> str:
    try:
        return page.body.decode(page.charset or "utf-8-sig")
    except (UnicodeDecodeError, LookupError) as error:
        problem = f"it is not in {page.charset or 'UTF-8'} ({error})"
        raise IngestError(name, "encoding", problem, "have it sent in UTF-8") from None


def _article(name: str, page: Page, text: str | None = None) -> str:
    """The text of an article as Markdown, without what stands around it."""
    import trafilatura  # noqa: PLC0415 - half a second, which only a page of the web is worth

    source = page.body if text is None else text  # bytes: what the page itself says of its encoding counts, too
    found = trafilatura.extract(source, url=page.url, output_format="markdown", with_metadata=False, favor_recall=True)
    if not found or not found.strip():
        raise IngestError(name, "empty", "no text of an article was found in it", "give a page that holds its text")
    return str(found)


def _entries(name: str, page: Page) -> Iterator[tuple[str, str]]:
    """Each entry of a feed that has words, newest first."""
    import feedparser  # type: ignore[import-untyped]  # noqa: PLC0415 - likewise

    feed = feedparser.parse(io.BytesIO(page.body))  # a stream: a text or bytes it may take for a path, and open it
    entries = sorted(feed.entries, key=_when, reverse=True)[:MOST_ENTRIES]
    count = 0
    for number, entry in enumerate(entries, start=1):
        body = max((one.get("value", "") for one in entry.get("content", ())), key=len, default="")
        words = _words(body or entry.get("summary", ""))
        title = _words(entry.get("title", ""))
        if words:
            count += 1
            yield f"{name}#{number}.md", f"# {title}\n\n{words}\n" if title else words
    if not count:
        fault = f"it is a feed without a readable entry ({feed.get('bozo_exception') or 'none has text'})"
        raise IngestError(name, "empty", fault, "give the address of an article of it")


def _when(entry: Any) -> float:  # noqa: ANN401 - feedparser's
    stamp = entry.get("published_parsed") or entry.get("updated_parsed")
    return float(calendar.timegm(stamp)) if stamp else 0.0


def _words(markup: str) -> str:
    """The words of a piece of HTML, a line for each of its blocks."""
    from lxml import html  # type: ignore[import-untyped]  # noqa: PLC0415 - trafilatura brings it

    if not markup.strip():
        return ""
    root = html.fromstring(f"<div>{markup}</div>")
    for gone in root.xpath("//script | //style"):
        gone.drop_tree()
    for block in root.xpath("//p | //br | //li | //div | //h1 | //h2 | //h3 | //tr | //blockquote"):
        block.tail = "\n\n" + (block.tail or "")
    lines = (" ".join(line.split()) for line in root.text_content().split("\n"))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()
