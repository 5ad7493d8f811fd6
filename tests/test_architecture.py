"""Facts about the house: who may import whom, as docs/architecture.md draws it."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OWN = {"bandits", "gateway", "graphs", "flows", "service", "bot", "dashboard", "benchmarks", "commands", "pilotage"}
MAY_IMPORT = {
    "bandits": set(),
    "gateway": {"bandits"},
    "graphs": {"bandits", "gateway"},
    "flows": {"bandits", "gateway", "graphs"},
    "service": {"bandits", "gateway", "graphs"},
    "bot": {"bandits", "gateway", "graphs"},
    "dashboard": {"bandits", "gateway", "graphs"},
    "benchmarks": OWN - {"benchmarks", "commands", "pilotage"},
}
ONLY_IN = {
    "prefect": {"flows"},
    "langgraph": {"graphs"},
    "fastapi": {"service"},
    "discord": {"bot"},
    "streamlit": {"dashboard"},
}


def imports(path: Path) -> set[str]:
    """Top-level names that a file imports, lazily or not."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(str(node.module).split(".")[0])
    return found


FILES = [path for room in MAY_IMPORT for path in sorted((ROOT / room).rglob("*.py"))]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_room_imports_only_what_lies_below_it(path):
    """bandits <- gateway <- graphs <- {flows, service, bot, dashboard}; frameworks stay in their room."""
    room = path.relative_to(ROOT).parts[0]
    found = imports(path)

    assert (found & OWN) - {room} <= MAY_IMPORT[room]
    for framework, rooms in ONLY_IN.items():
        assert framework not in found or room in rooms, f"{framework} belongs in {rooms}"


def test_the_checker_sees_an_upward_import(tmp_path):
    """The negative control."""
    bad = tmp_path / "bad.py"
    bad.write_text("def f():\n    from flows.night import night\n    import prefect.runtime\n")

    assert imports(bad) == {"flows", "prefect"}


def test_deciding_loads_no_framework_and_no_learning_library():
    """The decision path of a fresh process: numpy and the record, not sklearn, optuna, duckdb or prefect."""
    code = (
        "import sys, numpy as np\n"
        "from bandits.config import load_config\n"
        "from bandits.record.memory import MemoryRecord\n"
        "from bandits.router import Router\n"
        "from bandits.types import Scope\n"
        "d = load_config().domains['model_routing']\n"
        "r = Router(Scope('demo', 'main', 'model_routing'), d, MemoryRecord(), np.random.default_rng(0))\n"
        "r.decide(np.zeros(76))\n"
        "print(sorted({m.split('.')[0] for m in sys.modules} & "
        "{'prefect', 'sklearn', 'scipy', 'optuna', 'duckdb', 'pyarrow', 'langgraph', 'fastapi', 'streamlit'}))"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)

    assert done.stdout.strip() == "[]"


BANDITS = ROOT / "bandits"
ROOMS = sorted(path.parent.name for path in BANDITS.glob("*/__init__.py"))
AFTERWARDS = {"warehouse", "training", "tuning", "night", "scheduled", "what_if", "explaining", "privacy", "backups"}
ELSEWHERE = {"interchange", "testing"}  # for exchange and for tests


def running_imports(node: ast.AST) -> Iterator[ast.ImportFrom]:
    """The imports that run, lazily or not: what only the types' checker reads is no arrow."""
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
        return
    if isinstance(node, ast.ImportFrom):
        yield node
    for child in ast.iter_child_nodes(node):
        yield from running_imports(child)


def module_arrows() -> dict[str, set[str]]:
    """For each module of bandits, without that word, the modules of bandits that it imports."""
    found = {}
    for path in sorted(BANDITS.rglob("*.py")):
        name = ".".join(path.relative_to(BANDITS).with_suffix("").parts).removesuffix(".__init__")
        found[name] = set()
        for node in running_imports(ast.parse(path.read_text(encoding="utf-8"))):
            if (node.module or "").split(".")[0] != "bandits":
                continue
            room = str(node.module).split(".")[1:]
            for alias in node.names:
                whole = BANDITS.joinpath(*room, alias.name)
                found[name].add(".".join([*room, alias.name] if whole.with_suffix(".py").exists() else room))
    return found


def room_arrows(modules: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """The same between rooms; a file at the top of bandits/ stands for itself."""
    found = defaultdict(set)
    for name, imported in modules.items():
        room = name.split(".")[0]
        found[room] |= {other.split(".")[0] for other in imported} - {room}
    return found


def reached(modules: Mapping[str, set[str]], start: str) -> set[str]:
    """All that `start` imports, by whatever way."""
    found, open_ = set(), [start]
    while open_:
        name = open_.pop()
        if name not in found:
            found.add(name)
            open_ += modules.get(name, ())
    return found


def test_no_circle_runs_between_the_rooms_of_bandits():
    """Nor between a room and a file at the top: what lies below can be read without what lies above."""
    assert {"record", "router", "night"} <= set(TopologicalSorter(room_arrows(module_arrows())).static_order())


def test_a_circle_is_seen():
    """The negative control: an arrow back, from the record to the router, closes one."""
    modules = module_arrows()
    modules["record.tables"].add("router")

    with pytest.raises(CycleError):
        list(TopologicalSorter(room_arrows(modules)).static_order())


def test_what_decides_knows_nothing_of_what_comes_afterwards():
    """A server, by all that it imports: no warehouse, no learning at night, no looking back. Offline code does know."""
    modules = module_arrows()
    rooms = {name.split(".")[0] for name in reached(modules, "serving")}

    assert {"record", "money", "day", "rollout", "router"} <= rooms
    assert not rooms & (AFTERWARDS | ELSEWHERE)
    assert "warehouse" in {name.split(".")[0] for name in reached(modules, "scheduled.nights")}


def test_settings_stand_on_the_nouns_alone():
    assert room_arrows(module_arrows())["settings"] == {"assignment", "errors", "types"}


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_says_what_it_is_and_passes_nothing_on(room):
    """Whoever needs a thing names the file that has it."""
    tree = ast.parse((BANDITS / room / "__init__.py").read_text(encoding="utf-8"))

    assert ast.get_docstring(tree)
    assert len(list((BANDITS / room).glob("*.py"))) > 3
    if room != "features":  # whose names are its files, put together
        assert len(tree.body) == 1


def test_the_table_of_contents_names_every_file_and_room():
    """bandits/__init__.py is where a stranger begins."""
    contents = (BANDITS / "__init__.py").read_text(encoding="utf-8")

    for path in BANDITS.iterdir():
        if path.suffix == ".py" and path.stem != "__init__":
            assert path.name in contents
        elif path.name in ROOMS:
            assert f"{path.name}/" in contents
