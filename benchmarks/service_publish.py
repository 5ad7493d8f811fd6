"""Publish policies that play one arm into a home: a process of its own, so that it holds up nothing of service.py.

    python -m benchmarks.service_publish HOME

It says "ready"; for each line that names an arm it publishes, and says the version.
"""

from __future__ import annotations

import sys
from pathlib import Path

from bandits.home import Home
from benchmarks.service import publish

if __name__ == "__main__":
    print("ready", flush=True)
    for line in sys.stdin:
        print(publish(Home(Path(sys.argv[1])), line.strip()), flush=True)
