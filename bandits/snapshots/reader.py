"""Hold the last good snapshot of a scope, whatever happens to the folder."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from nacl.signing import VerifyKey

from bandits.errors import SnapshotError
from bandits.snapshots.loading import Snapshot, load, versions
from bandits.snapshots.manifest import expired, refused
from bandits.snapshots.store import Root
from bandits.types import Scope


class SnapshotReader:
    """Holds the last good snapshot of a scope. Versions only ever rise here, whatever happens to the folder."""

    def __init__(self, root: Root, scope: Scope, trusted: Mapping[str, VerifyKey]) -> None:
        self._root, self._scope, self._trusted = root, scope, dict(trusted)
        self._lock = threading.Lock()
        self.current: Snapshot | None = None  # replaced whole; read it once per decision
        self.last_error: SnapshotError | None = None  # what the latest refresh found wrong; None when nothing

    def refresh(self, now: float) -> bool:
        """Swap to the highest version that verifies, if it is higher than the current one; True if it swapped.

        Never raises SnapshotError: what is wrong stands in `last_error`, and the current snapshot keeps serving.
        """
        with self._lock:
            try:
                newer, self.last_error = self._newer(now)
            except SnapshotError as error:
                newer, self.last_error = None, error
            self.current = newer or self.current
            return newer is not None

    def _newer(self, now: float) -> tuple[Snapshot | None, SnapshotError | None]:
        serving = self.current.manifest.version if self.current else "0"
        there, fault = versions(self._root, self._scope), None
        for version in reversed(there):
            if int(version) <= int(serving):
                break
            try:
                return load(self._root, self._scope, version, trusted=self._trusted, now=now), fault
            except SnapshotError as error:
                fault = fault or error
        if fault is None and self.current is None:
            fault = refused(str(self._scope), "a snapshot must have been published, but there is none.")
        elif fault is None and serving not in there:
            fault = refused(f"{self._scope}/{serving}", "the version that serves must stay, but its folder is gone.")
        elif fault is None and self.current and not now < self.current.manifest.expires:
            fault = expired(self.current.manifest, now)
        return None, fault
