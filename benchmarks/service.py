"""How quick is the front door, how much does it take, and does it drop anything while the policy is swapped?

    python -m benchmarks.service --rps 500 --seconds 60 --workers 1 2

Starts `pilotage serve` over a home of its own, with a durable record (SQLite, WAL, synchronous=FULL), and asks it over
HTTP from another process (http_load.py). One row for each second of the first number of workers; then the most that
each number of workers takes, the detour over /v1, and the decision without HTTP.

How to read it. Open loop: `p50_ms` and `p99_ms` of POST /route count from when a request was due, so a stall is charged
with all who would have come. `errors`: answers other than 200, or none. `swap_errors`: those within 5 s after one of
`--swaps` snapshots was published; `swapped` says that the last one serves. `max_rps`: closed loop, 64
connections. `front_door_overhead_ms`: median of a chat completion through /v1 less the median of the same asked of the
provider itself, both over HTTP on this machine; two durable writes are in it. `rss_slope_mib_per_h`: least squares over
the resident memory of all processes of the service, without the first third; over a minute it is mostly warming up, so
ask for --seconds 600 to judge it.

What would make it wrong: another program on the same cores (everything here is measured beside the load generator and
the provider, on the machine's cores together); a disk that acknowledges before it has written.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np

from bandits.config import load_config
from bandits.features import Request, context
from bandits.home import Home
from bandits.learners.baselines import ContextFree
from bandits.serving import Server
from bandits.snapshots import publishing
from bandits.snapshots.keys import signing_key
from bandits.types import Scope
from benchmarks.http_load import Sample, closed_loop, open_loop, request
from service.keys import make_key

ARMS = ("small", "middle", "large")
SCOPE = Scope("bench", "main", "model_routing")
SWAP_S = 5.0
LONGEST_P99_MS, LONGEST_INSIDE_MS, LONGEST_DETOUR_MS = 30.0, 10.0, 8.0
FLAT_MIB_PER_H, LONG_ENOUGH_S = 64.0, 600.0
_CONNECTIONS = 64
_SERVE = "import sys; from service.run import serve; serve(port=int(sys.argv[1]), workers=int(sys.argv[2]))"


def main() -> None:
    """See the head of this file."""
    parser = argparse.ArgumentParser(prog="benchmarks.service", description=__doc__.splitlines()[0])
    parser.add_argument("--rps", type=_positive, default=500.0, help="requests a second")
    parser.add_argument("--seconds", type=_positive, default=60.0, help="of the open loop")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="numbers of worker processes")
    parser.add_argument("--swaps", type=int, default=2, help="snapshots that are published during the open loop")
    parser.add_argument("--max-seconds", type=_positive, default=10.0, help="of each closed loop")
    parser.add_argument("--seed", type=int, default=0, help="of the prompts")
    options = parser.parse_args()
    if min(options.workers) < 1 or options.swaps < 1:
        parser.error("--workers and --swaps must be 1 or more")
    with tempfile.TemporaryDirectory(prefix="pilotage-service-") as folder, _provider() as provider:
        _measure(options, Path(folder), provider)


def _measure(options: argparse.Namespace, folder: Path, provider: int) -> None:
    prompts, most = _prompts(options.seed), {}
    summary: dict[str, Any] = {"summary": True, "rps": options.rps, "seconds": options.seconds}
    for workers in options.workers:
        home, environ = _home(folder / f"workers-{workers}", provider)
        key = make_key(home, SCOPE.tenant, "bench")
        asks = [request("/route", key, {"prompt": prompt}) for prompt in prompts]
        with _service(environ, workers) as (port, pid):
            _in_process(_open, port, asks, min(options.rps, 50.0), 3.0)  # everything is loaded and made
            if workers == options.workers[0]:
                summary |= {"workers": workers} | _steady(options, home, environ, (port, pid), key, asks)
                summary["front_door_overhead_ms"] = _detour(port, provider, key, prompts)
            most[workers] = round(_in_process(_closed, port, asks, options.max_seconds), 1)
        _say({"workers": workers, "max_rps": most[workers]})
    summary |= {"max_rps": most[options.workers[0]], "max_rps_by_workers": most}
    summary |= _inside(options, *_home(folder / "inside", provider), prompts)
    is_flat = options.seconds < LONG_ENOUGH_S or summary["rss_slope_mib_per_h"] <= FLAT_MIB_PER_H
    summary["met"] = bool(
        summary["p99_ms"] < LONGEST_P99_MS
        and summary["in_process_p99_ms"] < LONGEST_INSIDE_MS
        and summary["front_door_overhead_ms"] <= LONGEST_DETOUR_MS
        and summary["errors"] == summary["swap_errors"] == 0
        and summary["swapped"]
        and is_flat
    )
    _say(summary)


def _steady(
    options: argparse.Namespace, home: Home, environ: dict[str, str], at: tuple[int, int], key: str, asks: list[bytes]
) -> dict[str, Any]:
    """The open loop, with snapshots published on the way.   at: port and process of the service."""
    port, pid = at
    published: list[float] = []  # seconds since it began
    versions: list[str] = []
    memory: list[tuple[float, float]] = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(1.0):
            memory.append((time.perf_counter() - begun, _rss_mib(pid)))

    with _publisher(home, environ) as put:

        def publish() -> None:
            for swap in range(options.swaps):
                due = begun + options.seconds * (swap + 1) / (options.swaps + 1)
                time.sleep(max(due - time.perf_counter(), 0.0))
                versions.append(put(("large", "middle")[swap % 2]))
                published.append(time.perf_counter() - begun)

        begun = time.perf_counter()
        threads = [threading.Thread(target=watch), threading.Thread(target=publish)]
        for thread in threads:
            thread.start()
        samples: list[Sample] = _in_process(_open, port, asks, options.rps, options.seconds)
        threads[1].join()
        over.set()
        threads[0].join()
    for second in range(math.ceil(options.seconds)):
        of = [sample for sample in samples if second <= sample.due < second + 1]
        if of:
            _say({"second": second, **_percentiles(of), "errors": _errors(of)})
    near = [sample for sample in samples if any(0.0 <= sample.due - moment < SWAP_S for moment in published)]
    return {
        **_percentiles(samples),
        "errors": _errors(samples),
        "swap_errors": _errors(near),
        "requests": len(samples),
        "swaps": len(versions),
        "swapped": _serves(port, key, max(versions)),
        "rss_slope_mib_per_h": _slope(memory),
        "rss_mib": round(memory[-1][1], 1) if memory else None,
    }


@contextmanager
def _publisher(home: Home, environ: dict[str, str]) -> Iterator[Callable[[str], str]]:
    """Publishes a policy that plays an arm, from a process that is long there, as a night's is; tells its version."""
    command = [sys.executable, "-m", "benchmarks.service_publish", str(home.root)]
    with subprocess.Popen(command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        into, out = process.stdin, process.stdout
        assert into is not None
        assert out is not None
        out.readline()  # "ready"

        def put(arm: str) -> str:
            into.write(f"{arm}\n")
            into.flush()
            return out.readline().strip()

        yield put
        into.close()


def _detour(port: int, provider: int, key: str, prompts: Sequence[str]) -> float:
    """Median of a chat completion through /v1, less that of the provider alone, ms; in turns."""
    body = [{"model": "auto", "messages": [{"role": "user", "content": prompt}]} for prompt in prompts]
    through = [request("/v1/chat/completions", key, one) for one in body]
    direct = [request("/v1/chat/completions", key, one | {"model": "maker/small"}) for one in body]
    took: dict[str, list[float]] = {"through": [], "direct": []}
    for _ in range(5):
        for name, to, asks in (("through", port, through), ("direct", provider, direct)):
            samples = _in_process(_open, to, asks, 20.0, 4.0)
            if _errors(samples):
                raise RuntimeError(f"every chat completion must be answered, but {_errors(samples)} were not ({name}).")
            took[name] += [sample.took * 1e3 for sample in samples]
    return round(float(np.median(took["through"]) - np.median(took["direct"])), 3)


def _inside(
    options: argparse.Namespace, home: Home, environ: dict[str, str], prompts: Sequence[str]
) -> dict[str, float]:
    """The decision without HTTP, at the same pace, durable all the same."""
    config = load_config(Path(environ["PILOTAGE_CONFIG"]))
    took: list[float] = []
    with home.open_record() as record:
        server = Server(home, config, SCOPE, record, np.random.default_rng(options.seed))

        async def one(start: float, due: float, prompt: str) -> None:
            await server.router.decide_soon(context(Request(prompt), server.router.domain.features))
            took.append((time.perf_counter() - start - due) * 1e3)

        async def all_of_them() -> None:
            total, start, tasks = int(options.rps * min(options.seconds, 20.0)), time.perf_counter(), []
            for i in range(total):
                ahead = i / options.rps - (time.perf_counter() - start)
                if ahead > 0.0:
                    await asyncio.sleep(ahead)
                tasks.append(asyncio.create_task(one(start, i / options.rps, prompts[i % len(prompts)])))
            await asyncio.gather(*tasks)

        asyncio.run(all_of_them())
    p50, p99 = np.percentile(took, [50, 99])
    return {"in_process_p50_ms": round(float(p50), 3), "in_process_p99_ms": round(float(p99), 3)}


def _open(port: int, asks: Sequence[bytes], rps: float, seconds: float) -> list[Sample]:
    return asyncio.run(open_loop(port, asks, rps, seconds, _CONNECTIONS))


def _closed(port: int, asks: Sequence[bytes], seconds: float) -> float:
    return asyncio.run(closed_loop(port, asks, seconds, _CONNECTIONS))


def _in_process(work: Any, *arguments: Any) -> Any:  # noqa: ANN401 - whatever it is given and gives
    """Run `work` in a process of its own: nothing of the benchmark's holds up the load."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, arguments)


@contextmanager
def _service(environ: dict[str, str], workers: int) -> Iterator[tuple[int, int]]:
    """(port, process id) of a service that answers."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    log = Path(environ["PILOTAGE_HOME"]) / "service.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-c", _SERVE, str(port), str(workers)], env=environ, stdout=out, stderr=out
        )
        try:
            _wait(port, process, log)
            yield port, process.pid
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60.0)


def _wait(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    ask, deadline = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", time.monotonic() + 120.0
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=10.0) as connection:
                connection.sendall(ask)
                if connection.recv(64).startswith(b"HTTP/1.1 200"):
                    return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"the service must answer, but does not:\n{log.read_text()[-2000:]}")


@contextmanager
def _provider() -> Iterator[int]:
    """The port of a provider in a process of its own that answers at once."""
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.service_provider"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline())
    finally:
        process.terminate()
        process.wait(30.0)


def _home(folder: Path, provider: int) -> tuple[Home, dict[str, str]]:
    """A home, and the environment of a service over it."""
    folder.mkdir()
    arms = "".join(
        f'[[domains.model_routing.arms]]\nname = "{name}"\nmodel = "maker/{name}"\nprovider = "here"\n'
        "usd_per_request = 1e-4\n"
        for name in ARMS
    )
    (folder / "pilotage.toml").write_text(
        f'[providers.here]\nkind = "openai"\nbase_url = "http://127.0.0.1:{provider}/v1"\n[tenants.bench]\n'
        f"[domains.model_routing]\nbudget_usd_per_request = 1e-3\nburst = 100000000\n{arms}"
    )
    home = Home(folder / "home")
    home.root.mkdir()
    own = {"PILOTAGE_HOME": str(home.root), "PILOTAGE_CONFIG": str(folder / "pilotage.toml"), "OMP_NUM_THREADS": "1"}
    environ = {name: value for name, value in os.environ.items() if name != "PILOTAGE_RECORD"}
    return home, environ | own


def publish(home: Home, arm: str) -> str:
    """Publish a policy that plays one arm, and the floor; its version.

    At the head of the record, as a night does that has just read it: servers learn what came behind.
    """
    with home.open_record() as record:
        head = record.head()
    values = np.array([float(name == arm) for name in ARMS])
    policy = ContextFree("fixed", ARMS, "text-1", values, np.full(len(ARMS), 1e-4), 1e-3, 0.02)
    now = time.time()
    return publishing.publish(
        home.snapshots, SCOPE, policy.freeze(), position=head, parent=None, evidence={},
        created=now - 1.0, expires=now + 86_400.0, key=signing_key(home.root),
    ).version  # fmt: skip


def _serves(port: int, key: str, version: str) -> bool:
    """Whether decisions are drawn from a snapshot, or soon are."""
    deadline = time.monotonic() + 30.0
    while time.monotonic() < deadline:
        connection = HTTPConnection("127.0.0.1", port, timeout=30.0)
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        connection.request("POST", "/route", json.dumps({"prompt": "Which policy is it?"}), headers)
        if json.loads(connection.getresponse().read())["policy"] == version:
            return True
        connection.close()
    return False


def _prompts(seed: int) -> list[str]:
    """Prompts of 5 to 120 words."""
    rng = np.random.default_rng(seed)
    words = ["model", "explain", "why", "tail", "recursion", "code", "def", "2026", "translate", "the", "of", "is"]
    return [" ".join(rng.choice(words, size=rng.integers(5, 120)).tolist()) + "?" for _ in range(997)]


def _rss_mib(pid: int) -> float:
    """Resident memory of a process and its children."""
    children = [int(one) for task in Path(f"/proc/{pid}/task").glob("*/children") for one in task.read_text().split()]
    pages = sum(int(Path(f"/proc/{each}/statm").read_text().split()[1]) for each in [pid, *children])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _slope(memory: Sequence[tuple[float, float]]) -> float:
    """MiB an hour, without the first third."""
    if len(memory) < 6:
        return math.nan
    times, sizes = np.array(memory[len(memory) // 3 :]).T
    return round(float(np.polyfit(times, sizes, 1)[0]) * 3600.0, 2)


def _percentiles(samples: Sequence[Sample]) -> dict[str, float]:
    p50, p99 = np.percentile([sample.took * 1e3 for sample in samples], [50, 99])
    return {"p50_ms": round(float(p50), 3), "p99_ms": round(float(p99), 3)}


def _errors(samples: Sequence[Sample]) -> int:
    return sum(sample.status != 200 for sample in samples)


def _positive(text: str) -> float:
    value = float(text)
    if not (math.isfinite(value) and value > 0.0):
        raise argparse.ArgumentTypeError(f"must be above 0, but got {text}")
    return value


def _say(row: dict[str, Any]) -> None:
    print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
