"""The service as a process of its own: what it imports, what it logs, where it listens."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx

from service.keys import make_key

ROOT = Path(__file__).parents[2]
CONFIG = """
[tenants.acme]
[domains.model_routing]
budget_usd_per_request = 1e-3
arms = [{name = "a", model = "m/a", usd_per_request = 1e-4}, {name = "b", model = "m/b", usd_per_request = 1e-4}]
"""

DECIDE = """
import json, socket, sys, threading
HEAVY = ["prefect", "langgraph", "sklearn", "optuna", "streamlit", "duckdb", "pandas", "scipy", "discord"]
if sys.argv[1] == "absent":
    sys.modules.update(dict.fromkeys(HEAVY))  # importing one of them fails as if it were not installed
import httpx, uvicorn
from bandits.config import home, load_config
from bandits.home import Home
from service.app import create_app
from service.keys import make_key
key = make_key(Home(home()), "acme", "test")
listening = socket.create_server(("127.0.0.1", 0))
server = uvicorn.Server(uvicorn.Config(create_app(Home(home()), load_config()), log_level="critical"))
thread = threading.Thread(target=server.run, args=([listening],))
thread.start()
url, headers = "http://127.0.0.1:%d" % listening.getsockname()[1], {"Authorization": "Bearer " + key}
with httpx.Client(base_url=url, headers=headers) as client:
    made = client.post("/route", json={"prompt": "x"})
    loaded = [name for name in HEAVY if sys.modules.get(name) is not None]
    body = {"decision_id": made.json()["decision_id"], "quality": 1.0}
    answers = [made, client.post("/feedback", json=body), client.get("/decisions/" + body["decision_id"])]
    answers += [client.get(path) for path in ("/snapshots", "/metrics", "/readyz")]
server.should_exit = True
thread.join()
print(json.dumps([loaded, [answer.status_code for answer in answers]]))
"""

SERVE = "import sys; from service.run import serve; serve(port=int(sys.argv[1]))"


def environment(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "pilotage.toml").write_text(CONFIG)
    own = {"PILOTAGE_HOME": str(tmp_path / "home"), "PILOTAGE_CONFIG": str(tmp_path / "pilotage.toml")}
    return os.environ | own | {"PYTHONPATH": str(ROOT)}


def answer(script: str, argument: str, tmp_path: Path) -> object:
    command = [sys.executable, "-c", script, argument]
    environ = environment(tmp_path)
    done = subprocess.run(command, env=environ, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_process_that_decides_loads_nothing_heavy(tmp_path):
    """No prefect, langgraph, scikit-learn, optuna, streamlit, and none of what they bring."""
    loaded, statuses = answer(DECIDE, "there", tmp_path)

    assert (loaded, statuses) == ([], [200, 200, 200, 200, 200, 200])


def test_deciding_does_without_what_is_not_there(tmp_path):
    """Neither a warehouse nor Prefect nor any other of them has to be installed."""
    loaded, statuses = answer(DECIDE, "absent", tmp_path)

    assert (loaded, statuses) == ([], [200, 200, 200, 200, 200, 200])


def test_a_key_appears_in_no_log_and_no_answer_and_only_this_machine_is_served(tmp_path, home):
    """Wherever a caller puts it: header, query, body, path."""
    key = make_key(home, "acme", "test")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-c", SERVE, str(port)]
    process = subprocess.Popen(
        command, env=environment(tmp_path), cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    texts = []
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {key}"}) as client:
            wait(client)
            texts = [
                client.post("/route", json={"prompt": "x"}),
                client.post("/route", json={"prompt": "x", key: 1}),
                client.post("/route", json={"prompt": "x", "workspace": key}),
                client.post("/route", json={"context": [key]}),
                client.post("/feedback", json={"decision_id": key, "vote": 1}),
                client.get("/snapshots", params={"workspace": key}),
                client.get("/snapshots", params={"api_key": key}),
                client.get(f"/decisions/{key}"),
                client.get("/metrics"),
                client.get("/readyz"),
                client.get("/snapshots", headers={"Authorization": f"Basic {key}"}),
            ]
    finally:
        process.send_signal(signal.SIGINT)
        log, _ = process.communicate(timeout=60)

    assert [one.status_code for one in texts] == [200, 422, 422, 422, 404, 422, 422, 404, 200, 200, 401]
    assert '"GET /decisions/plt_…" 404' in log
    assert f"http://127.0.0.1:{port}" in log
    for text in (log, *(one.text + str(one.headers) for one in texts)):
        assert key not in text
        assert key[16:] not in text


def test_workers_are_one_service(tmp_path, home):
    """Two processes: both decide, each knows what the other decided, and /metrics counts what both did."""
    key = make_key(home, "acme", "test")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    script = "import sys; from service.run import serve; serve(port=int(sys.argv[1]), workers=2)"
    process = subprocess.Popen([sys.executable, "-c", script, str(port)], env=environment(tmp_path), cwd=tmp_path,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)  # fmt: skip
    headers = {"Authorization": f"Bearer {key}", "Connection": "close"}  # a new connection may reach either
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=60) as client:
            wait(client)
            made = [client.post("/route", json={"prompt": "x"}).json()["decision_id"] for _ in range(40)]
            for one in made:
                report = client.post("/feedback", json={"decision_id": one, "quality": 1.0, "cost_usd": 1e-4})
                assert report.json() == {"recorded": True}
            counted = client.get("/metrics").text
            deadline = time.monotonic() + 60.0
            seen = set()
            while time.monotonic() < deadline and seen != {40}:
                seen = {client.get("/budgets").json()["scopes"][0]["requests"] for _ in range(8)}
    finally:
        process.send_signal(signal.SIGINT)
        log, _ = process.communicate(timeout=60)

    assert len(set(re.findall(r"Started server process \[(\d+)\]", log))) == 2
    total = sum(float(n) for n in re.findall(r"^pilotage_decisions_total\{.*\} (\S+)$", counted, re.MULTILINE))
    assert total == 40.0
    assert seen == {40}


def wait(client: httpx.Client) -> None:
    """Until it listens."""
    deadline = time.monotonic() + 60.0
    while time.monotonic() < deadline:
        try:
            client.get("/healthz")
        except httpx.ConnectError:
            continue
        return
    raise AssertionError("it never listened")
