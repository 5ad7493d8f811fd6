"""Where state lives under $PILOTAGE_HOME, and a router that serves the newest good snapshot from there."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bandits.config import Config
from bandits.errors import ContextError, SnapshotError
from bandits.keys import trusted_keys
from bandits.learners.frozen import thaw
from bandits.record import Record, SqlRecord
from bandits.router import Router, Serving
from bandits.snapshots import SnapshotReader
from bandits.types import Scope


@dataclass(frozen=True, slots=True)
class Home:
    """The folder of all state. Everything but the record and the keys can be deleted and rebuilt."""

    root: Path

    @property
    def record_url(self) -> str:
        """The record: SQLite in one file."""
        return f"sqlite:///{self.root / 'record.db'}"

    @property
    def warehouse(self) -> Path:
        """The DuckDB view of the record."""
        return self.root / "warehouse.duckdb"

    @property
    def snapshots(self) -> Path:
        """Signed snapshots, by scope and version."""
        return self.root / "snapshots"

    @property
    def study(self) -> Path:
        """The journal of the nightly searches."""
        return self.root / "studies.journal"

    @property
    def prefect(self) -> Path:
        """Prefect's own home."""
        return self.root / "prefect"

    def open_record(self) -> SqlRecord:
        """Open the record, making it if it is not there."""
        return SqlRecord(self.record_url)


class Server:
    """A router and the reader that keeps it on the newest good snapshot of its scope."""

    def __init__(
        self,
        home: Home,
        config: Config,
        scope: Scope,
        record: Record,
        rng: np.random.Generator,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.router = Router(scope, config.domains[scope.domain], record, rng, clock)
        self._home, self._clock = home, clock
        self._reader: SnapshotReader | None = None
        self.last_error: Exception | None = None
        self.refresh()

    def refresh(self) -> bool:
        """Serve a newer snapshot if one verifies; True if it swapped.

        Never raises for a bad snapshot: what is wrong stands in `last_error`, and what serves goes on serving.
        """
        if self._reader is None:
            trusted = trusted_keys(self._home.root)
            if not trusted:  # nothing was ever published here
                return False
            self._reader = SnapshotReader(self._home.snapshots, self.router.scope, trusted)
        swapped = self._reader.refresh(self._clock())
        self.last_error = self._reader.last_error
        current = self._reader.current
        if not swapped or current is None:
            return False
        try:
            self.router.swap(Serving(thaw(current.frozen), current.manifest.version))
        except (SnapshotError, ContextError) as error:
            self.last_error = error
            return False
        return True
