"""Does every failure of a provider end in an answer or an honest error, in time, and at what price in extra calls?

    python -m benchmarks.faults --requests 2000 --dead 60

The product's own gateway, router and record, over real HTTP against a provider on the loopback interface that breaks
in thirteen ways (gateway/testing_faults.py), in three wire formats. The broken provider is all but sure to be drawn.
Three parts: each fault once, streaming and plain, with another model to stand in and without; then a provider that
fails at random; then one that is gone for `--dead` seconds and comes back.

Read it: a row is one case; `ended` must be `reply` or `error`. A reply is right word for word, an error is typed and
raised before the deadline; both leave a decision, and the cost of each attempt, in the record. `ok` counts those, of
`cases`. `visible_error_rate` (bar: < .005), `retry_rate` (<= .10) and `fallback_rate` (<= .35) are shares of the
requests of the second part, in which the drawn model fails in `--failing` of its calls. Of the third:
`breaker_opened_after` is how many calls failed until the model was left alone (<= 5; of calls that were under way at
the same time each counts the failures known when it was decided, and itself), `probes_per_s` the most calls that it got
in any second after that (<= 1), `closed_after_s` how long it was missed once it was back (<= 5).

What would make it wrong: deadlines so short that this machine misses them by itself (they are options; the time that
the provider is gone is not shortened by default), or one process for gateway and provider: they share a core, so
`seconds` are upper bounds. A waiting call that uses more than half a core counts as `hang`: it is a busy loop.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from bandits.config import parse_config
from bandits.experiments.serving import builtin
from bandits.record.port import rows
from bandits.record.sql import SqlRecord
from bandits.router import Router
from bandits.served import Serving
from bandits.types import Decision, Outcome, Scope
from gateway.adapter import Ask
from gateway.answer import Answer, Gateway, UnansweredError, open_gateway
from gateway.testing_faults import FAULTS, TEXT, Fault, FaultServer, fault_server

SCOPE = Scope("bench", "main", "model_routing")
WIRES = {"openai": "/v1", "anthropic": "", "gemini": ""}  # and the path that belongs to the base URL
ASK = Ask.of("Why is the sky blue?")
MODEL = ("primary", "vendor/primary")
AT_RANDOM: tuple[Fault, ...] = ("server", "refused", "empty", "wrong_type")  # before the first token, streaming or not
WAITING = ("hang_headers", "hang_first_token", "stall", "drip")
VISIBLE, RETRIES, FALLBACKS, OPENED, PROBES_PER_S, CLOSED_S = 0.005, 0.10, 0.35, 5, 1.0, 5.0  # the bars
_GRACE_S = 0.5  # for the record, which is written after the deadline
_AT_ONCE = 8  # requests under way in the second part
_PER_S = 20.0  # requests in the third


@dataclass(frozen=True, slots=True)
class World:
    """Two providers, the gateway over them, and the record."""

    primary: FaultServer
    router: Router
    gateway: Gateway
    record: SqlRecord

    async def ask(self, mode: str) -> Answer:
        """One request, read to its end."""
        if mode == "plain":
            return await self.gateway.answer(self.router, ASK)
        async with aclosing(await self.gateway.open_stream(self.router, ASK)) as stream:
            async for _ in stream:
                pass
            return stream.answer


@asynccontextmanager
async def world(settings: dict[str, Any], wire: str, fault: Fault | None, seed: int) -> AsyncIterator[World]:
    """A primary that may break and a spare that does not; the primary is drawn whenever it may be."""
    with tempfile.TemporaryDirectory() as folder, SqlRecord(f"sqlite:///{folder}/record.db") as record:
        async with fault_server(fault) as primary, fault_server() as spare:
            servers = {"primary": primary, "spare": spare}
            prices = {"usd_per_million": {"input": 1.0, "output": 2.0}, "prices_as_of": "2026-01-01"}
            arms = [
                {"name": name, "model": f"vendor/{name}", "provider": name, "usd_per_request": 1e-4} | prices
                for name in servers
            ]
            providers = {
                name: {"kind": wire, "base_url": server.url + WIRES[wire], "trust_env": False}
                for name, server in servers.items()
            }
            domains = {SCOPE.domain: {"arms": arms, "budget_usd_per_request": 1.0, "floor": 1e-12}}
            data = {"tenants": {SCOPE.tenant: {}}, "domains": domains, "providers": providers, "gateway": settings}
            config = parse_config(data, "the benchmark")
            domain, plays = config.domains[SCOPE.domain], "fixed:primary"
            policy = builtin(plays, domain)
            assert policy is not None
            router = Router(SCOPE, domain, record, np.random.default_rng(seed), serving=Serving(policy, plays))
            if fault == "refused":
                await primary.refuse()
            async with open_gateway(config) as gateway:
                yield World(primary, router, gateway, record)


async def case(
    settings: dict[str, Any], wire: str, fault: Fault, mode: str, is_with: bool, seed: int
) -> dict[str, Any]:
    """One fault, once."""
    chosen = settings | {"stand_ins": int(is_with)}
    async with world(chosen, wire, fault, seed) as one:
        begun, used, ended, last = time.perf_counter(), time.process_time(), "hang", ""
        try:
            async with asyncio.timeout(settings["total_s"] + 4 * _GRACE_S):
                answer = await one.ask(mode)
            text = answer.reply.text
            ended, last = ("reply" if text == "".join(TEXT) else "empty"), "stop"
        except UnansweredError as error:
            ended, last = "error", f"failed:{error.kind}"
        except TimeoutError:
            pass
        seconds, busy = time.perf_counter() - begun, time.process_time() - used
        if seconds > settings["total_s"] + _GRACE_S or (fault in WAITING and seconds > 0.2 and busy > 0.5 * seconds):
            ended = "hang"
        entries = [row.entry for row in rows(one.record)]
        decisions = [entry for entry in entries if isinstance(entry, Decision)]
        outcomes = [entry for entry in entries if isinstance(entry, Outcome)]
        is_told = (
            [decision.arm for decision in decisions] == ["primary"]
            and bool(outcomes)
            and outcomes[0].failed
            and outcomes[-1].result == last
            and all(outcome.cost_usd is not None for outcome in outcomes)
        )
    row = {"case": fault, "mode": mode, "fallback": is_with, "ended": ended, "seconds": round(seconds, 3)}
    return row | {"wire": wire, "recorded": is_told}


async def at_random(settings: dict[str, Any], failing: float, requests: int, seed: int) -> dict[str, float]:
    """A primary that fails by chance, with a healthy model to stand in."""
    rng, modes = np.random.default_rng(seed), itertools.cycle(("stream", "plain"))
    async with world(settings, "openai", None, seed) as one:
        one.primary.fault = lambda: AT_RANDOM[rng.integers(len(AT_RANDOM))] if rng.random() < failing else None
        left, errors = iter(range(requests)), 0

        async def customer() -> None:
            nonlocal errors
            for _ in left:
                try:
                    await one.ask(next(modes))
                except UnansweredError:
                    errors += 1

        await asyncio.gather(*(customer() for _ in range(_AT_ONCE)))
        counts = one.gateway.counts
    return {
        "visible_error_rate": errors / requests,
        "retry_rate": counts["retries"] / requests,
        "fallback_rate": counts["stand_ins"] / requests,
    }


async def dead(settings: dict[str, Any], seconds: float, seed: int) -> dict[str, Any]:
    """A primary that is gone for `seconds`, while requests keep coming."""
    async with world(settings, "openai", None, seed) as one:
        loop, asked = asyncio.get_running_loop(), set[asyncio.Task[None]]()
        failed: list[tuple[float, float]] = []  # of each call of the primary that did: when it was decided, and its end

        async def request() -> None:
            try:
                ended: Answer | UnansweredError = await one.ask("plain")
            except UnansweredError as error:  # the second part counts them
                ended = error
            for attempt in ended.attempts:
                if attempt.arm == "primary" and attempt.failure is not None:
                    failed.append((ended.decision.time, attempt.time))

        async def keep_asking(until: float, *, closed: bool = False) -> float:
            """Ask at a steady rate until then, or until the breaker has closed; when that was."""
            while loop.time() < until and not (closed and one.gateway.states()[MODEL] == "closed"):
                asked.add(asyncio.create_task(request()))
                await asyncio.sleep(1.0 / _PER_S)
            return loop.time()

        await keep_asking(loop.time() + 1.0)
        await one.primary.refuse()
        await keep_asking(loop.time() + seconds)
        await one.primary.listen()
        back = loop.time()
        closed = await keep_asking(back + 4 * CLOSED_S, closed=True)
        await asyncio.gather(*asked)
    decided = sorted(at for at, _ in failed)
    alone = next((i + 1 for i, (a, b) in enumerate(itertools.pairwise(decided)) if b - a > 0.5), len(decided))
    known = [sum(end <= at for _, end in failed) for at in decided[:alone]]
    probes = decided[alone:]
    most = max((sum(at <= other < at + 1.0 for other in probes) for at in probes), default=0)
    return {
        "breaker_opened_after": max(known, default=-1) + 1,
        "probes_per_s": float(most),
        "closed_after_s": round(closed - back, 3),
        "probes": len(probes),
    }


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Print the rows of the first part; return the summary."""
    settings = {
        "connect_s": options.first_token,
        "first_token_s": options.first_token,
        "stall_s": options.stall,
        "total_s": options.total,
        "backoff_s": 0.02,
    }
    ok, cases = 0, list(itertools.product(options.wire, options.faults, ("stream", "plain"), (True, False)))
    for wire, fault, mode, is_with in cases:
        row = await case(settings, wire, fault, mode, is_with, options.seed)
        ok += row["ended"] in ("reply", "error") and row["recorded"]
        print(json.dumps(row), flush=True)
    print(f"{options.requests} requests, {options.failing:.0%} of calls fail ...", file=sys.stderr)
    rates = await at_random(settings, options.failing, options.requests, options.seed)
    print(f"a provider that is gone for {options.dead:g} s ...", file=sys.stderr)
    gone = await dead(settings, options.dead, options.seed)
    met = (
        ok == len(cases)
        and rates["visible_error_rate"] < VISIBLE
        and rates["retry_rate"] <= RETRIES
        and rates["fallback_rate"] <= FALLBACKS
        and gone["breaker_opened_after"] <= OPENED
        and gone["probes_per_s"] <= PROBES_PER_S
        and gone["closed_after_s"] <= CLOSED_S
    )
    return {"summary": True, "cases": len(cases), "ok": ok, **rates, **gone, "dead_s": options.dead, "met": met}


def main(arguments: Sequence[str] | None = None) -> None:
    """Read options, run the three parts, print rows, then the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wire", nargs="+", choices=WIRES, default=list(WIRES), help="wire formats of the first part")
    parser.add_argument("--faults", nargs="+", choices=FAULTS, default=list(FAULTS), help="of the first part")
    parser.add_argument("--first-token", type=float, default=0.5, help="deadline, s")
    parser.add_argument("--stall", type=float, default=0.5, help="deadline between two tokens, s")
    parser.add_argument("--total", type=float, default=2.0, help="deadline of a request, s")
    parser.add_argument("--requests", type=int, default=2_000, help="of the second part")
    parser.add_argument("--failing", type=float, default=0.3, help="share of the primary's calls that fail there")
    parser.add_argument("--dead", type=float, default=60.0, help="how long the primary is gone in the third part, s")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    if options.requests < 1 or not 0.0 < options.failing < 1.0 or not 0.0 < options.dead < float("inf"):
        parser.error("--requests and --dead must be positive, --failing between 0 and 1.")
    if not 0.0 < max(options.first_token, options.stall) <= options.total < float("inf"):
        parser.error("deadlines must be positive, and --total the longest.")
    print(json.dumps(asyncio.run(measure(options))))


if __name__ == "__main__":
    main()
