"""The text of a page: its article, without the menus around it (trafilatura; the page is given, nothing is fetched)."""

from __future__ import annotations

import logging
import re

from graphs.errors import IngestError

logging.getLogger("trafilatura").setLevel(logging.CRITICAL)  # it logs what it then returns as nothing


def article_text(name: str, page: str) -> str:
    """Paragraphs of the article in an HTML page, headings kept as Markdown. Raises IngestError if it holds none."""
    from trafilatura import extract  # noqa: PLC0415 - 0.3 s to import, and only pages need it

    found = extract(page, output_format="markdown", include_comments=False, include_tables=True, fast=False)
    if not found or not found.strip():
        raise IngestError(name, "empty", "the page holds no text", "give a page whose text does not need a browser")
    return found.strip()


def looks_like_html(text: str) -> bool:
    """Whether a text begins as a page does, whatever it is called."""
    head = text.lstrip()[:200]
    return bool(re.match(r"(?is)<!doctype html|<html[\s>]", head))
