"""Hashed pieces of words: what a prompt is about, without a vocabulary.

Three letters at a time, each as often as it occurs, so that a mistyped letter moves a few pieces among hundreds (of
hashed whole words, one in forty). No more columns than a night can learn from.
"""

from __future__ import annotations

import re

import numpy as np

from bandits.features.request import Reading

_WIDTH, _LENGTH = 64, 3
NAMES = tuple(f"piece_{i}" for i in range(_WIDTH))
_NUMBER = re.compile(r"\d+")
_BASE, _MIX = np.uint64(0x100000001B3), np.uint64(0xFF51AFD7ED558CCD)  # FNV's prime; MurmurHash3's finaliser


def features(reading: Reading) -> list[float]:
    """Signed counts of the pieces by their hash, scaled to norm 1 (Weinberger et al. 2009, "Feature Hashing")."""
    text = f" {_NUMBER.sub('0', reading.text)} "
    if len(text) < _LENGTH:
        return [0.0] * _WIDTH
    letters = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.uint64)
    code = np.zeros(len(letters) - _LENGTH + 1, dtype=np.uint64)
    for offset in range(_LENGTH):
        code = code * _BASE + letters[offset : offset + len(code)]
    code = (code ^ (code >> np.uint64(33))) * _MIX
    code ^= code >> np.uint64(33)
    signs = np.where(code & np.uint64(1), 1.0, -1.0)
    counts = np.bincount((code >> np.uint64(1)).astype(np.int64) % _WIDTH, signs, _WIDTH)
    return [float(count) for count in counts / max(float(np.sqrt(counts @ counts)), 1.0)]
