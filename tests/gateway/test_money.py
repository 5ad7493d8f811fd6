"""Facts about money on the way of a prompt: reserved, settled with every attempt, and exact after a kill."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from bandits.money.caps import HOLD_S, nano
from bandits.money.ledger import Ledger
from bandits.record.port import rows
from bandits.record.sql import SqlRecord
from bandits.rewards import cost
from bandits.router import Router
from bandits.settings.caps import CapsConfig
from bandits.types import Decision, Outcome
from gateway.adapter import Ask
from tests.gateway.conftest import QUICK, SCOPE, USD, domain, world

CAP = 0.5  # USD a day
CAPS = {SCOPE.tenant: CapsConfig(usd_per_day=CAP)}


def told(record: SqlRecord) -> tuple[list[Decision], int]:
    """The decisions, and what they cost by the record, in nano-dollars: each one rounded as when settled."""
    entries = [row.entry for row in rows(record)]
    decisions = [entry for entry in entries if isinstance(entry, Decision)]
    spent = [cost([o for o in entries if isinstance(o, Outcome) and o.decision_id == d.id]) or 0.0 for d in decisions]
    return decisions, sum(map(nano, spent))


def test_every_attempt_is_settled(tmp_path):
    """What failed on the way and what was served, in one sum; nothing stays held."""

    async def scene(url):
        with SqlRecord(url) as record, Ledger(url, CAPS) as ledger:
            async with world("stall", QUICK.model_copy(update={"retries": 0})) as w:
                router = Router(SCOPE, w.router.domain, record, np.random.default_rng(0), ledger=ledger,
                                serving=w.router.serving)  # fmt: skip
                answer = await w.gateway.answer(router, Ask.of("Hello?"))
            (standing,) = ledger.standings(SCOPE.tenant, "", answer.decision.time)
            assert [attempt.failure for attempt in answer.attempts] == ["total_timeout", None]
            assert standing.settled == nano(sum(attempt.cost_usd for attempt in answer.attempts))
            assert standing.settled > nano(USD["primary"])
            assert standing.reserved == 0

    asyncio.run(scene(f"sqlite:///{tmp_path / 'record.db'}"))


def test_a_cost_that_was_recorded_but_not_settled_is_found_at_the_start(tmp_path):
    """A process died between the two; told again, it counts once."""
    url = f"sqlite:///{tmp_path / 'record.db'}"
    with SqlRecord(url) as record, Ledger(url, CAPS) as ledger:
        router = Router(SCOPE, domain(), record, np.random.default_rng(0), ledger=ledger)
        first, second = (router.decide(np.zeros(76, np.float32)) for _ in range(2))
        router.report(Outcome(second.id, second.time, SCOPE, cost_usd=0.1))
        for usd in (0.1, 0.2):  # the record hears of it, the ledger does not
            record.append(Outcome(first.id, first.time, SCOPE, cost_usd=usd))
    with Ledger(url, CAPS) as ledger:
        assert ledger.standings(SCOPE.tenant, "", first.time)[0].settled == nano(0.1)
        assert ledger.reconcile(first.time) == 1
        assert ledger.standings(SCOPE.tenant, "", first.time)[0].settled == nano(0.1) + nano(0.1 + 0.2)
        assert ledger.reconcile(first.time) == 0


SPENDER = """
import asyncio, random, sys
import numpy as np
from bandits.errors import BudgetExhaustedError
from bandits.money.ledger import Ledger
from bandits.record.sql import SqlRecord
from bandits.router import Router
from gateway.adapter import Ask
from gateway.answer import Gateway, UnansweredError
from gateway.replay import Recording, Replay
from tests.gateway.conftest import SCOPE, arm, domain
from tests.gateway.test_money import CAPS

url, seed, usd = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
rng = random.Random(seed)
prices = [usd * rng.uniform(0.5, 1.0) for _ in range(50)]
recordings = {f"p{i}": {"vendor/spare": Recording(0.5, price, "yes")} for i, price in enumerate(prices)}
for i in range(0, 50, 2):  # the other half of the primary's prompts fails, and another answers for it
    recordings[f"p{i}"]["vendor/primary"] = Recording(0.5, prices[i], "yes")
arms = [arm(name, provider="replay", usd_per_request=usd) for name in ("primary", "spare")]

async def main():
    with SqlRecord(url) as record, Ledger(url, CAPS) as ledger:
        router = Router(SCOPE, domain(*arms), record, np.random.default_rng(seed), ledger=ledger)
        async with Gateway({"replay": Replay(recordings)}) as gateway:
            async def spend(number):
                while True:
                    try:
                        await gateway.answer(router, Ask.of(f"p{rng.randrange(50)}"))
                    except BudgetExhaustedError:
                        return
            await asyncio.gather(*(spend(number) for number in range(int(sys.argv[4]))))
    print("done", flush=True)

asyncio.run(main())
"""


def race(url: str, kills: int, usd: float, processes: int) -> int:
    """64 spenders in so many processes until the cap is reached, `kills` killed; how many were in mid-work."""
    root, rng, seeds, killed = Path(__file__).parents[2], random.Random(3), iter(range(10_000)), 0

    def start() -> subprocess.Popen[str]:
        command = [sys.executable, "-c", SPENDER, url, str(next(seeds)), repr(usd), str(64 // processes)]
        environment = os.environ | {"PYTHONPATH": str(root)}
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root, env=environment)

    alive = [start() for _ in range(processes)]
    with Ledger(url, CAPS) as ledger:
        for moment in sorted(rng.uniform(0.05, 0.75) for _ in range(kills)):
            victim = alive.pop(rng.randrange(processes))
            while victim.poll() is None and ledger.standings(SCOPE.tenant, "", time.time())[0].settled < nano(
                moment * CAP
            ):
                time.sleep(0.002)
            killed += victim.poll() is None
            victim.kill()
            victim.communicate()
            alive.append(start())
        for process in alive:
            assert process.communicate(timeout=300)[0] == "done\n"
    return killed


def check_race(url: str, kills: int, usd: float, processes: int) -> None:
    """Spend after the restart is what the record says, to the nano-dollar; no cap is passed by more than a request."""
    assert race(url, kills, usd, processes) == kills
    with SqlRecord(url) as record:
        decisions, spent = told(record)
    now = decisions[-1].time
    with Ledger(url, CAPS) as ledger:
        ledger.reconcile(now)
        (standing,) = ledger.standings(SCOPE.tenant, "", now + 2 * HOLD_S)  # some held after the last decision
    assert len(decisions) > 50
    assert (standing.settled, standing.reserved) == (spent, 0)
    assert nano(CAP) - nano(usd) * (1 + 64 // processes * kills) < spent <= nano(CAP) + nano(usd)


def test_64_spenders_through_the_gateway_who_are_killed(tmp_path):
    """Once, in mid-work."""
    check_race(f"sqlite:///{tmp_path / 'record.db'}", 1, 8e-3, 1)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_64_spenders_through_the_gateway_who_are_killed_often(tmp_path):
    """Twenty times."""
    check_race(f"sqlite:///{tmp_path / 'record.db'}", 20, 1e-4, 4)
