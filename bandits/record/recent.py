"""What this process appended lately: whoever follows the record need not read and decode rows that it wrote itself."""

from __future__ import annotations

from collections.abc import Iterable

from bandits.types import Entry

MOST = 16_384  # entries that are kept; beyond, the oldest are read from the record again


class Recent:
    """Entries by position. One thread keeps, any thread gets.

    An entry is good for the epoch in which it was written, and for no later one: an erasure may have taken it.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._entries: dict[int, tuple[int, Entry]] = {}  # in order of position

    def keep(self, first: int, entries: Iterable[Entry], epoch: int) -> None:
        """Keep entries that were committed at positions from `first` on, in an epoch."""
        for position, entry in enumerate(entries, start=first):
            self._entries[position] = (epoch, entry)
        while len(self._entries) > self._most:
            del self._entries[next(iter(self._entries))]

    def between(self, after: int, until: int, epoch: int) -> dict[int, Entry]:
        """The entries at positions after+1 .. until, in the epoch that lasts; those that are not here must be read."""
        kept = ((at, self._entries.get(at)) for at in range(after + 1, until + 1))
        return {at: one[1] for at, one in kept if one is not None and one[0] == epoch}
