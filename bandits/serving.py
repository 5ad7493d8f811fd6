"""Where state lives under $PILOTAGE_HOME, and a router that serves the newest good snapshot from there."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bandits.config import Config
from bandits.errors import ContextError, KeyFileError, RecordError, SnapshotError
from bandits.keys import trusted_keys
from bandits.learners.frozen import thaw
from bandits.record import Record, SqlRecord
from bandits.router import Router, Serving
from bandits.snapshots import SnapshotReader
from bandits.state import CHECKPOINT_EVERY, resume, save, tail
from bandits.types import Scope


@dataclass(frozen=True, slots=True)
class Home:
    """The folder of all state. Record, audit, keys and snapshots are to be kept; the rest follows from the record."""

    root: Path

    @property
    def record_url(self) -> str:
        """The record: SQLite in one file."""
        return f"sqlite:///{self.root / 'record.db'}"

    @property
    def audit_url(self) -> str:
        """The audit chain: a file of its own, since it grows by a few rows a night."""
        return f"sqlite:///{self.root / 'audit.db'}"

    @property
    def warehouse(self) -> Path:
        """The DuckDB view of the record."""
        return self.root / "warehouse.duckdb"

    @property
    def snapshots(self) -> Path:
        """Signed snapshots, by scope and version."""
        return self.root / "snapshots"

    def checkpoint(self, scope: Scope) -> Path:
        """The last state of a scope's servers: a cache of the record."""
        return self.root / "checkpoints" / scope.tenant / scope.workspace / f"{scope.domain}.json"

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
        domain = config.domains[scope.domain]
        self._home, self._clock, self._record = home, clock, record
        self._state = resume(home.checkpoint(scope), scope, domain, record)  # what the record says, and nothing else
        self._kept = 0  # position of the checkpoint
        self.router = Router(scope, domain, record, rng, clock, copy.deepcopy(self._state))
        self._reader: SnapshotReader | None = None
        self._unfit: Exception | None = None  # why the newest snapshot that verified cannot serve this router
        self.last_error: Exception | None = None
        self.refresh()

    def refresh(self) -> bool:
        """Count what other processes did, and serve a newer snapshot if one verifies and fits; True if it swapped.

        Never raises for what is wrong with record, snapshots or keys: it stands in `last_error` for as long as it is
        so, and what serves goes on serving.
        """
        try:
            self._follow()
            reader = self._reader = self._reader or self._find_reader()
        except (KeyFileError, RecordError, OSError) as error:
            self.last_error = error
            return False
        if reader is None:
            self.last_error = None
            return False
        verified = reader.refresh(self._clock())
        if verified and reader.current is not None:
            self._unfit = None
            try:
                self.router.swap(Serving(thaw(reader.current.frozen), reader.current.manifest.version))
            except (SnapshotError, ContextError) as error:
                self._unfit = error
        self.last_error = self._unfit or reader.last_error
        return verified and self._unfit is None

    def _follow(self) -> None:
        """Catch up with the record, and keep a checkpoint so that a restart folds few rows."""
        position = self.router.catch_up()
        if position - self._kept >= CHECKPOINT_EVERY:
            self._state.fold(tail(self._record, self._state.position))
            save(self._home.checkpoint(self.router.scope), self._state)
            self._kept = self._state.position

    def _find_reader(self) -> SnapshotReader | None:
        """A reader, once there is a key to trust: before the first publishing there is none."""
        trusted = trusted_keys(self._home.root)
        return SnapshotReader(self._home.snapshots, self.router.scope, trusted) if trusted else None
