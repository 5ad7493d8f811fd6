"""The room without langgraph, in a process of its own that cannot import it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
BLOCKED = "import sys; sys.modules['langgraph'] = None; "


def python(code):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


class TestWithoutLangGraph:
    def test_the_suite_passes_and_its_langgraph_half_says_why_it_is_skipped(self):
        done = python(
            BLOCKED + "import pytest; sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', '-k', 'not json', "
            "'tests/graphs/test_runners.py', 'tests/graphs/test_fallback.py']))"
        )

        assert done.returncode == 0, done.stdout + done.stderr
        assert "langgraph is not installed" in done.stdout
        passed, skipped = (int(re.search(rf"(\d+) {what}", done.stdout).group(1)) for what in ("passed", "skipped"))
        assert passed > 40
        assert skipped > 30

    def test_the_pilot_does_not_import_langgraph_before_it_is_needed_and_falls_back_without_it(self):
        done = python(
            "import sys; from graphs.pilot import run_pilot; from graphs.state import PilotRequest; "
            "request = PilotRequest('a', 'b', [('a.txt', 'Hello world.')]); "
            "run_pilot(request, orchestrator='sequential'); "
            "print([name for name in sys.modules if name.startswith('lang')]); "
            + BLOCKED
            + "r = run_pilot(request); print(r.orchestrator, r.status, r.degradations[0]['event'])"
        )

        assert done.stdout.split() == ["[]", "sequential", "degraded", "fallback_sequential"], done.stderr
