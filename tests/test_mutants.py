"""Break the gate and the sequential tests in every small way: the tests must notice in at least nine of ten cases.

mutmut (a dependency of development) changes one comparison, operator, number, text or argument at a time, in a copy of
the code, and runs the module's own tests. It runs a test more than once in a process, which Hypothesis takes for a
mistake: so the copy has a profile that allows it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TARGETS = {
    "bandits/night/gates.py": ("night/test_gates.py", "evaluation/test_input.py"),
    "bandits/night/judging.py": ("night/test_judging.py",),
    "bandits/experiments/srm.py": ("experiments/test_experiments.py",),
    "bandits/experiments/ab.py": ("experiments/test_experiments.py",),
    "bandits/monitoring/ecusum.py": ("monitoring/test_monitoring.py",),
    "bandits/evaluation/sequences.py": ("evaluation/test_intervals.py", "evaluation/test_input.py"),
}
PROFILE = """
from hypothesis import HealthCheck, settings
settings.register_profile("mutants", suppress_health_check=list(HealthCheck), deadline=None, database=None)
settings.load_profile("mutants")
"""
SETTINGS = """
[tool.mutmut]
source_paths = ["bandits"]
only_mutate = ["{module}"]
also_copy = ["benchmarks", "conftest.py"]
pytest_add_cli_args_test_selection = ["tests"]
pytest_add_cli_args = ["-p", "no:langsmith_plugin", "-p", "no:cacheprovider", "--import-mode=importlib", "-mnot slow"]
[tool.pytest.ini_options]
markers = ["slow: long suites"]
"""


def mutate(module: str, tests: tuple[str, ...], folder: Path) -> dict[str, int]:
    """Counts by mutmut of a module's mutants: killed, survived, timeout, total and others."""
    for room in ("bandits", "benchmarks"):
        shutil.copytree(ROOT / room, folder / room, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "tests").mkdir()
    for test in tests:
        shutil.copy(ROOT / "tests" / test, folder / "tests")
    (folder / "conftest.py").write_text(PROFILE, encoding="utf-8")
    (folder / "pyproject.toml").write_text(SETTINGS.format(module=module), encoding="utf-8")
    for command in ("run", "export-cicd-stats"):
        done = subprocess.run(
            [sys.executable, "-m", "mutmut", command],
            cwd=folder,
            capture_output=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            check=False,
        )
        assert done.returncode == 0, done.stdout[-2000:].decode(errors="replace")
    return json.loads((folder / "mutants/mutmut-cicd-stats.json").read_text(encoding="utf-8"))


@pytest.mark.slow
@pytest.mark.timeout(7200)
class TestMutants:
    @pytest.mark.parametrize("module", TARGETS)
    def test_nine_of_ten_are_noticed(self, module, tmp_path, record_property):
        found = mutate(module, TARGETS[module], tmp_path)
        record_property(module, found)
        assert found["total"] > 20
        assert found["killed"] + found["timeout"] >= 0.9 * found["total"], (module, found)

    def test_tests_that_assert_nothing_are_found_out(self, tmp_path):
        """The negative control: a module whose tests run every line and state nothing."""
        empty = tmp_path / "test_empty.py"
        empty.write_text(
            "from bandits.night.gates import spend\ndef test_it():\n    spend(0.05, 1)\n", encoding="utf-8"
        )
        folder = tmp_path / "copy"
        folder.mkdir()
        found = mutate("bandits/night/gates.py", (str(empty),), folder)
        assert found["killed"] < 0.5 * found["total"]
