"""Publish a policy that plays one arm into a home: a process of its own, so that it holds up nothing of service.py.

    python -m benchmarks.service_publish HOME ARM

It says "ready", publishes when it is sent a line, and says the version.
"""

from __future__ import annotations

import sys
from pathlib import Path

from bandits.home import Home
from benchmarks.service import publish

if __name__ == "__main__":
    print("ready", flush=True)
    sys.stdin.readline()
    print(publish(Home(Path(sys.argv[1])), sys.argv[2]))
