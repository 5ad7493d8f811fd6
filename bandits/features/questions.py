"""What is asked: an amount, a reason, a way, a fact, or that something be written. Words of seven languages."""

from __future__ import annotations

import re
from math import log1p

from bandits.features.request import Reading

_ASKED = {
    "amount": r"how (?:many|much)|wie ?viele?|combien|cu[aá]nt[oa]s?|quant[oi]|hoeveel|сколько|多少|いくつ",
    "reason": r"why|explain|warum|erkläre?|pourquoi|expliquer?|por qu[eé]|perché|waarom|почему|为什么|なぜ",
    "way": r"how (?:do|does|can|to)|wie (?:kann|geht)|comment (?:faire|puis)|c[oó]mo|come posso|как|如何|どう",
    "fact": r"what|which|who|when|where|welche[rs]?|quel(?:le)?s?|cu[aá]l|qual|quale|welke|какой|什么|何",
    "text": r"write|rewrite|summari[sz]e|translate|schreibe?|écris|résume|escribe|escreva|scrivi|напиши|写|書",
}
NAMES = ("log_question_marks", *(f"asks_{name}" for name in _ASKED))
_MARK = re.compile(r"[?؟]")
# Han and kana are written without blanks: there is no boundary of a word to look for.
_PATTERNS = [
    re.compile(rf"\b(?:{words})\b|{'|'.join(re.findall('[一-鿿ぁ-ん]+', words))}") for words in _ASKED.values()
]


def features(reading: Reading) -> list[float]:
    """One number a name."""
    marks = log1p(len(_MARK.findall(reading.text)))
    return [marks, *(float(pattern.search(reading.text) is not None) for pattern in _PATTERNS)]
