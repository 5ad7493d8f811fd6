"""Break the gate and the sequential tests in every small way: the tests must notice in at least nine of ten cases.

A mutant is one changed comparison, operator, number, `and`/`or`, `min`/`max` or `not` in the code of a module; texts of
messages and annotations are left alone. Each runs the module's own tests, in a copy of the code.
"""

from __future__ import annotations

import ast
import copy
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TARGETS = {
    "bandits/gates.py": ["tests/test_gates.py::TestEnds", "tests/test_gates.py"],
    "bandits/experiments/srm.py": ["tests/test_experiments.py::TestSampleRatio"],
    "bandits/experiments/ab.py": ["tests/test_experiments.py::TestDifference", "tests/test_experiments.py"],
    "bandits/monitoring/ecusum.py": ["tests/test_monitoring.py::TestDrop", "tests/test_monitoring.py::TestStatistic"],
}
COMPARE = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq}
COMPARE |= {ast.Is: ast.IsNot, ast.IsNot: ast.Is}
OPERATE = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult}
NAMES = {"min": "max", "max": "min", "any": "all", "all": "any"}


def mutants(source: str) -> Iterator[tuple[str, str]]:
    """What was changed, and the module with it changed."""
    tree = ast.parse(source)
    for at, node in enumerate(ast.walk(tree)):
        for which in range(len(node.ops) if isinstance(node, ast.Compare) else 1):
            other = copy.deepcopy(tree)
            *_, place = (found for i, found in enumerate(ast.walk(other)) if i == at)
            before = ast.unparse(place)
            if changed(place, which) and not spoken(tree, node):
                yield f"line {node.lineno}: {before} -> {ast.unparse(place)}", ast.unparse(other)


def changed(node: ast.AST, which: int) -> bool:
    """Change this node in place; False if it is of no kind that is changed."""
    if isinstance(node, ast.Compare) and type(node.ops[which]) in COMPARE:
        node.ops[which] = COMPARE[type(node.ops[which])]()
    elif isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in OPERATE:
        node.op = OPERATE[type(node.op)]()
    elif isinstance(node, ast.BoolOp):
        node.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
    elif isinstance(node, ast.Constant) and type(node.value) in (int, float):
        node.value = node.value + 1
    elif isinstance(node, ast.Name) and node.id in NAMES:
        node.id = NAMES[node.id]
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        node.op = ast.UAdd()
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        node.operand = ast.UnaryOp(ast.Not(), node.operand)
    else:
        return False
    return True


def spoken(tree: ast.Module, node: ast.AST) -> bool:
    """Whether the node is part of a text for a person, or of an annotation."""
    silent = [n for n in ast.walk(tree) if isinstance(n, ast.JoinedStr)]
    silent += [n.annotation for n in ast.walk(tree) if isinstance(n, ast.AnnAssign | ast.arg) and n.annotation]
    silent += [n.returns for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.returns]
    return any(node is inner for outer in silent for inner in ast.walk(outer))


def survives(folder: Path, module: str, source: str) -> bool:
    """Whether the module's tests pass with this source."""
    (folder / module).write_text(source, encoding="utf-8")
    command = [sys.executable, "-B", "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-m", "not slow"]
    try:
        done = subprocess.run(
            [*command, *TARGETS[module]], cwd=folder, capture_output=True, timeout=120, env={**os.environ}, check=False
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


class TestMutants:
    def test_a_mutant_differs_in_one_place(self):
        found = dict(mutants("def f(a: int = 1) -> bool:\n    return not a < 2 and max(a, 3) > 0, f'{a + 1}'\n"))
        assert len(found) == 9
        assert sum("a <= 2" in source for source in found.values()) == 1
        assert all("f'{a + 1}'" in source for source in found.values())

    @pytest.mark.slow
    @pytest.mark.timeout(7200)
    @pytest.mark.parametrize("module", TARGETS)
    def test_nine_of_ten_are_noticed(self, module, tmp_path, record_property):
        for part in ("bandits", "benchmarks", "tests"):
            shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", tmp_path)
        source = (ROOT / module).read_text(encoding="utf-8")
        assert survives(tmp_path, module, source), "the tests must pass unbroken"
        broken = list(mutants(source))
        alive = [what for what, changed in broken if survives(tmp_path, module, changed)]
        record_property(module, f"{len(broken) - len(alive)} of {len(broken)} noticed; not: {alive}")
        assert len(alive) <= 0.1 * len(broken), alive
