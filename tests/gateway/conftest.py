"""A gateway over two real servers on the loopback interface, one of which breaks, and what the record has of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from bandits.config import ArmConfig, DomainConfig
from bandits.experiments.serving import builtin
from bandits.record.memory import MemoryRecord
from bandits.router import Router
from bandits.served import Serving
from bandits.settings.gateway import GatewayConfig
from bandits.types import Decision, Outcome, Scope
from gateway.answer import Gateway
from gateway.http import Key, Server
from gateway.live import Live
from gateway.openai import OpenAI
from gateway.testing_faults import Fault, FaultServer, fault_server

SCOPE = Scope("acme", "main", "model_routing")
QUICK = GatewayConfig(connect_s=0.5, first_token_s=0.15, stall_s=0.1, total_s=1.0, backoff_s=0.01)
PRICES = {"input": 100.0, "output": 1000.0}
USD = {"primary": 2e-3, "spare": 1e-3}


def arm(name: str, **more: Any) -> ArmConfig:
    known = {"name": name, "model": f"vendor/{name}", "provider": name, "usd_per_request": USD.get(name, 3e-3)}
    return ArmConfig(**(known | {"usd_per_million": PRICES, "prices_as_of": "2026-11-01"} | more))


def domain(*arms: ArmConfig, **more: Any) -> DomainConfig:
    return DomainConfig(arms=arms or (arm("primary"), arm("spare")), budget_usd_per_request=1.0, **more)


@dataclass
class World:
    """What a test has: the provider that breaks, the one that does not, and all between them and the record."""

    primary: FaultServer
    spare: FaultServer
    record: MemoryRecord
    router: Router
    gateway: Gateway

    @property
    def decisions(self) -> list[Decision]:
        return [row.entry for row in self.record.read() if isinstance(row.entry, Decision)]

    @property
    def outcomes(self) -> list[Outcome]:
        return [row.entry for row in self.record.read() if isinstance(row.entry, Outcome)]

    @property
    def told(self) -> list[tuple[str, str, float | None]]:
        """Of each outcome: the arm that it tells of, its result and quality."""
        return [(outcome.arm, outcome.result, outcome.quality) for outcome in self.outcomes]


def live(server: FaultServer) -> Live:
    return Live(OpenAI(), Server("test", f"{server.url}/v1", Key("authorization", "k", "Bearer"), {}, connect_s=1.0))


@asynccontextmanager
async def world(
    fault: Fault | None = None,
    settings: GatewayConfig = QUICK,
    of: DomainConfig | None = None,
    plays: str = "fixed:primary",
    **router: Any,
) -> AsyncIterator[World]:
    """`plays`: the policy; the primary is all but sure to be drawn."""
    async with fault_server(fault) as primary, fault_server() as spare:
        if fault == "refused":
            await primary.refuse()
        config, record = of or domain(floor=1e-12), MemoryRecord()
        policy = builtin(plays, config)
        router = {"serving": Serving(policy, plays), "rng": np.random.default_rng(0)} | router
        made = Router(SCOPE, config, record, **router)
        adapters = {"primary": live(primary), "spare": live(spare)}
        async with Gateway(adapters, settings, rng=np.random.default_rng(0)) as gateway:
            yield World(primary, spare, record, made, gateway)
