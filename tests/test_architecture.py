"""Facts about the house: who may import whom, as docs/architecture.md draws it."""

from __future__ import annotations

import ast
import subprocess
import sys
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
