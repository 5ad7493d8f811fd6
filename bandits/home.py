"""Where state lives under $PILOTAGE_HOME."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from bandits.config import Config, home, record_url
from bandits.money.ledger import Ledger
from bandits.record.sql import SqlRecord
from bandits.settings.caps import CapsConfig
from bandits.types import Scope


@dataclass(frozen=True, slots=True)
class Home:
    """The folder of all state. Record, audit, prompts, keys and snapshots are to be kept; the rest follows."""

    root: Path
    record: str | None = field(default=None, repr=False)  # URL of a record elsewhere, which may have a password

    @classmethod
    def here(cls) -> Home:
        """The home and the record that environment and configuration name. Raises ConfigError."""
        return cls(home(), record_url())

    @property
    def record_url(self) -> str:
        """The record: SQLite in one file of the home, unless another was named."""
        return self.record or f"sqlite:///{self.root / 'record.db'}"

    @property
    def record_file(self) -> Path | None:
        """The file of the record; None where a server has it."""
        return Path(self.record_url.removeprefix("sqlite:///")) if self.record_url.startswith("sqlite:") else None

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
        return self.checkpoints / "servers" / scope.tenant / scope.workspace / f"{scope.domain}.json"

    def learning(self, scope: Scope) -> Path:
        """What a scope's servers learned since their snapshot: a cache of the record."""
        return self.checkpoint(scope).with_suffix(".learning.json")

    @property
    def checkpoints(self) -> Path:
        """Caches of folds over the record: whoever erases deletes them."""
        return self.root / "checkpoints"

    @property
    def erasures(self) -> Path:
        """Erasures that are not complete yet."""
        return self.root / "erasures"

    @property
    def people(self) -> Path:
        """The keys of people (privacy/people.py)."""
        return self.root / "keys" / "people.db"

    @property
    def prompts(self) -> Path:
        """Prompts of tenants that keep them (privacy/prompts.py)."""
        return self.root / "prompts.db"

    @property
    def backups(self) -> Path:
        """Where this home was backed up to: whoever erases must reach the keys there."""
        return self.root / "backups.json"

    @property
    def publishing(self) -> Path:
        """The lock of whoever publishes or erases: no policy of an epoch that has ended may come after its end."""
        return self.root / "publishing.lock"

    @property
    def trials(self) -> Path:
        """Candidates on trial (night/judging.py): signed like snapshots, and served to nobody."""
        return self.root / "trials"

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

    def open_ledger(self, config: Config) -> Ledger | None:
        """Open the ledger of the tenants' caps, and count what a killed process left; None where nobody has caps."""
        caps = {name: tenant.caps for name, tenant in config.tenants.items()}
        if all(one == CapsConfig() for one in caps.values()):
            return None
        ledger = Ledger(self.record_url, caps)
        ledger.reconcile(time.time())
        return ledger
