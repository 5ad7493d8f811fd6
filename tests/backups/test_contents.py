"""Facts about what a home holds: each name in it is copied, or declared to be made again; what is neither is told."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from bandits.backups import rows
from bandits.backups.contents import HELD, unknown
from bandits.backups.restore import restore
from bandits.backups.runs import TABLES as RUNS
from bandits.home import Home
from bandits.record.tables import HEAD, META
from bandits.scheduled import nights
from graphs.embed import HashedSvd
from graphs.kit import equipped
from graphs.pilot import run_pilot
from graphs.state import PilotRequest
from graphs.vectors import CachedEncoder
from service.keys import make_key
from tests.backups.home import DAY, HERE, NOW, back_up, config_of
from tests.backups.test_trials import put_on_trial
from tests.service.conftest import serving

ROOT = Path(__file__).parents[2]
ROOMS = ("bandits", "gateway", "graphs", "service", "flows", "bot", "dashboard", "commands")
FILES = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]
ELSEWHERE = {"sealed", "audit", "audit_content"}  # tables of a backup, and of audit.db


def busy(home: Home) -> Home:
    """A home in which everything has happened: a night, a trial, a pilot run in LangGraph, a service with callers."""
    pytest.importorskip("langgraph.checkpoint.sqlite")
    config = config_of(home)
    config = config.model_copy(update={"night": config.night.model_copy(update={"trials": 2})})
    put_on_trial(home)
    nights.spend(home, config, HERE, NOW + DAY)
    with equipped(home, config, "acme", "main") as (runs, options):
        documents = [("a.md", "# Gateway\n\nIt crashed on Friday. We rolled it back.")]
        run_pilot(PilotRequest("acme", "main", documents), runs=runs, **options)
    CachedEncoder(HashedSvd().fit(["one text", "another text"]), "any", home.root / "vectors.db").encode(["one text"])
    key = make_key(home, "acme", "tests")
    with serving(home, config) as running:
        asked = {"domain": "own", "context": [0.0, 1.0]}
        headers = {"Authorization": f"Bearer {key}"}
        httpx.post(f"{running.url}/route", json=asked, headers=headers).raise_for_status()
    return home


def test_every_name_in_a_busy_home_is_declared(home, tmp_path):
    """Also in the home that comes of its backup; and what nobody declared is left out aloud."""
    folder = back_up(busy(home), tmp_path / "backups").path
    restore(folder, tmp_path / "new", NOW)

    names = {path.name for path in home.root.iterdir()}
    assert {"pilot.db", "pilot.graph.db", "library.duckdb", "limits.bin", "nights", "studies.journal"} <= names
    assert {"trials", "snapshots", "prompts.db", "audit.db", "erasures", "warehouse.duckdb.turn"} <= names
    assert unknown(home) == unknown(Home(tmp_path / "new")) == []
    copied = {name for name in names if HELD.get(name) in ("sealed", "runs", "sqlite", "duckdb", "tree")}
    assert copied <= {path.name for path in folder.iterdir()}

    (home.root / "news.db").touch()
    (home.root / ".writing").touch()
    made = back_up(home, home.root / "safe" / "backups", NOW + 1.0)
    assert made.unknown == ("news.db",)
    assert "not Pilotage's, and not in it: news.db" in made.render()


def is_home(node: ast.expr) -> bool:
    """`….root`, `home` or `home()`."""
    node = node.func if isinstance(node, ast.Call) else node
    return (isinstance(node, ast.Attribute) and node.attr == "root") or (
        isinstance(node, ast.Name) and node.id == "home"
    )


def joined(source: str) -> Iterator[str]:
    """The names that a module joins to the folder of a home."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.BinOp(left, ast.Div(), ast.Constant(name)) if is_home(left):
                yield str(name)


def tables(source: str) -> Iterator[str]:
    """The names of the tables that a module defines."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(ast.Attribute(attr="Table"), [ast.Constant(name), *_]):
                yield str(name)


def test_no_module_writes_a_name_into_the_home_that_is_not_declared():
    """Every literal in the rooms; a new store has to say what becomes of it."""
    found = {name for path in FILES for name in joined(path.read_text(encoding="utf-8"))}

    assert {"record.db", "library.duckdb", "vectors.db", "limits.bin", "trials"} <= found
    assert found <= set(HELD)
    assert set(joined('p = f"{place.root / \'a.db\'}"; q = home() / "b"; r = folder / "c"')) == {"a.db", "b"}


def test_no_table_of_the_record_is_forgotten():
    """Where the record lies on a server, all tables lie there; each is sealed, copied, or in a file of its own."""
    found = {name for path in FILES for name in tables(path.read_text(encoding="utf-8"))}
    copied = {META.name, HEAD.name, *RUNS, *(table.name for table in (*rows._PLAIN, *rows._OWNED))}

    assert found - ELSEWHERE == copied
