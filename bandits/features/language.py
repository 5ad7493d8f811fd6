"""Which script, and which language as its commonest words tell: a guess without a model."""

from __future__ import annotations

import re

from bandits.features.request import Reading

_SCRIPTS = {
    "latin": "a-zß-ɏḁ-ỿ",
    "cyrillic": "Ѐ-ԯ",
    "arabic": "؀-ۿݐ-ݿ",
    "indic": "ऀ-෿",
    "han": "㐀-䶿一-鿿",
    "kana": "ぁ-ヿ",
    "hangul": "ᄀ-ᇿ가-힣",
}
# Common words of one language that are none, or rare, in the others.
_WORDS = {
    "english": "the of and is to for with that what how you are it from this can",
    "french": "les des est une dans pour que qui avec sur pas vous je quel comment sont",
    "german": "der die das und ist nicht ein eine mit für auf wie ich sie wird den",
    "spanish": "el los las una del con por para qué cómo es y en su está como",
    "portuguese": "os uma do da em não com para são é qual você um ao pelo isso",
    "italian": "il gli della di che per una è come sono nel questo quale non con cosa",
    "dutch": "het een van en dat niet voor met zijn hoe wat ik je aan ook naar",
}
NAMES = (*(f"script_{name}" for name in _SCRIPTS), *(f"language_{name}" for name in _WORDS))

_LETTER = re.compile(r"[^\W\d_]")
_IN_SCRIPT = [re.compile(f"[{ranges}]") for ranges in _SCRIPTS.values()]
_COMMON = [frozenset(words.split()) for words in _WORDS.values()]
_WORD = re.compile(r"[^\W\d_]+")
_CHANCE = 0.1  # share of the words that looks like a language by chance: "die" is English too


def features(reading: Reading) -> list[float]:
    """Share of the letters in each script, then share of words common in each language, above chance; in [0, 1]."""
    letters = max(len(_LETTER.findall(reading.text)), 1)
    words = _WORD.findall(reading.text)
    scripts = [min(len(pattern.findall(reading.text)) / letters, 1.0) for pattern in _IN_SCRIPT]
    shares = [sum(word in common for word in words) / max(len(words), 1) for common in _COMMON]
    return scripts + [max(share - _CHANCE, 0.0) for share in shares]
