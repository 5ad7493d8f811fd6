"""Copy the log of a SQLite record into its file beside the commits, so that none of them has to wait for it.

SQLite does it inside of whichever commit made the log long, and all who wait for that commit wait for two more flushes
and some hundred pages. A thread of its own copies most of the log while others write (PASSIVE), and only what came
meanwhile while it keeps them waiting (FULL); then the next commit begins the log anew.
"""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing, suppress

PAUSE_S = 1.0  # between two looks
PATIENCE_S = 0.02  # for a commit or a reader to end; then the next look does it
LONGEST = 8_000  # pages of the log at which a commit copies it after all: this thread has fallen behind


class Checkpointer:
    """The thread of one record. It begins with the first commit; it is a daemon: what it leaves, the next one does."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._commits = 0

    def committed(self) -> None:
        """There is something to copy. Called by one thread, the record's writer.

        It opens the file now, not later: whoever opens it makes a log where there is none, and so would hide from the
        writer that its own was removed.
        """
        self._commits += 1
        if self._thread is None:
            with suppress(sqlite3.Error):
                connection = _open(self._path)
                self._thread = threading.Thread(
                    target=self._run, args=[connection], name="record-checkpointer", daemon=True
                )
                self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self, opened: sqlite3.Connection) -> None:
        copied = 0
        with closing(opened) as connection:
            while not self._over.wait(PAUSE_S):
                if copied != self._commits:
                    copied = self._commits
                    with suppress(sqlite3.Error):  # busy, or the disk is full: commits tell of what matters
                        connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
                        connection.execute("PRAGMA wal_checkpoint(FULL)").fetchone()


def _open(path: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=PATIENCE_S, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("SELECT position FROM head").fetchone()  # the file is opened when something is asked of it
    return connection
