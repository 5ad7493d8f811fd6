"""The record in memory: for benchmarks and tests."""

from __future__ import annotations

import threading
from typing import Self

from bandits.record.erasure import Epoch
from bandits.record.port import Row
from bandits.record.rules import admit, check, keys, unknown
from bandits.types import Decision, Entry, Outcome, Scope


class MemoryRecord:
    """A record in a list: for benchmarks and tests. An append costs a few microseconds and survives nothing."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: list[Entry] = []
        self._decisions: dict[str, Decision] = {}
        self._outcomes: dict[str, list[Outcome]] = {}
        self._keys: set[tuple[str, str]] = set()

    def append(self, *entries: Entry) -> int:
        """See `Record.append`."""
        for entry in entries:
            check(entry)
        with self._lock:
            admit(entries, self._scope, self._keys)
            for entry in entries:
                self._entries.append(entry)
                if isinstance(entry, Decision):
                    self._decisions[entry.id] = entry
                else:
                    self._outcomes.setdefault(entry.decision_id, []).append(entry)
            self._keys |= keys(entries)
            return len(self._entries)

    async def append_soon(self, *entries: Entry) -> int:
        """See `Record.append_soon`."""
        return self.append(*entries)

    def read(self, after: int = 0, limit: int = 10_000) -> list[Row]:
        """See `Record.read`."""
        after = max(after, 0)
        found = self._entries[after : after + max(limit, 0)]
        return [Row(position, entry) for position, entry in enumerate(found, start=after + 1)]

    def recall(self, after: int = 0, limit: int = 10_000) -> list[Row]:
        """See `Record.recall`: it is all memory."""
        return self.read(after, limit)

    def decision(self, decision_id: str, tenant: str) -> Decision:
        """See `Record.decision`."""
        found = self._decisions.get(decision_id)
        if found is None or found.scope.tenant != tenant:
            raise unknown(decision_id, tenant)
        return found

    def outcomes(self, decision_id: str) -> list[Outcome]:
        """See `Record.outcomes`."""
        return list(self._outcomes.get(decision_id, ()))

    def conversation(self, tenant: str, conversation: str) -> Decision | None:
        """See `Record.conversation`."""
        found = [
            one
            for one in self._decisions.values()
            if conversation and one.conversation == conversation and one.scope.tenant == tenant
        ]
        return found[-1] if found else None

    def head(self) -> int:
        """See `Record.head`."""
        return len(self._entries)

    def erased(self, after: int, until: int) -> set[int]:
        """See `Record.erased`. Nothing ever is."""
        del after, until
        return set()

    def epoch(self) -> Epoch:
        """See `Record.epoch`. It never ends."""
        return Epoch(1, 0)

    def close(self) -> None:
        """See `Record.close`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _scope(self, decision_id: str) -> Scope | None:
        found = self._decisions.get(decision_id)
        return None if found is None else found.scope
