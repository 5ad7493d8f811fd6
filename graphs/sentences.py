"""Text to sentences, in any script; a turn of talk and a paragraph end one, too."""

from __future__ import annotations

import re

_END = re.compile(r"(?<=[.!?…])[\"'”)\]]*\s+|(?<=[。！？])|\n+")


def sentences(text: str) -> list[str]:
    """Sentences in order, white space made plain."""
    return [" ".join(piece.split()) for piece in _END.split(text) if piece.strip()]
