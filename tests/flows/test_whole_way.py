"""The whole way, with nothing replaced: HTTP decision -> feedback -> load -> night -> snapshot -> bot -> dashboard."""

from __future__ import annotations

import asyncio
import json

import numpy as np
from streamlit.testing.v1 import AppTest

import dashboard
from bandits.config import load_config
from bandits.home import Home
from bandits.record.port import rows
from bandits.types import Decision, Outcome
from gateway.replay import Replay
from service.keys import make_key
from tests.bot.conftest import MENTION, World, point, running  # noqa: F401  (point is a fixture)
from tests.bot.fake_discord import FakeDiscord
from tests.flows.conftest import ROOT, pilotage, wait_for
from tests.service.conftest import serving

RECORDING = ROOT / "gateway" / "examples" / "replay.jsonl"
REQUESTS = 260


def test_the_whole_way(api, tmp_path, monkeypatch, point):  # noqa: F811
    """260 requests over HTTP, one night in Prefect; then HTTP, Discord and the dashboard all meet the new policy.

    It is the first, so half of those who ask meet it, and the others the first policy.
    """
    monkeypatch.setenv("PILOTAGE_HOME", str(tmp_path / "home"))
    home, config, replay = Home(tmp_path / "home"), load_config(ROOT / "pilotage.toml"), Replay.read(RECORDING)
    rng = np.random.default_rng(0)
    key = make_key(home, "demo", "whole-way")

    with serving(home, config, refresh_s=0.05) as running_service:
        http = running_service.client(key)
        for _ in range(REQUESTS):
            prompt = str(rng.choice(replay.prompts))
            decided = http.post("/route", json={"prompt": prompt}).json()
            assert decided["policy"] == "explore"
            reply = replay.recorded(decided["model"], prompt)
            told = {"decision_id": decided["decision_id"], "quality": reply.quality, "cost_usd": reply.cost_usd}
            assert http.post("/feedback", json=told).json() == {"recorded": True}

        loaded = json.loads(pilotage("load", "--json").stdout)
        assert loaded == {"rows": 2 * REQUESTS, "quarantined": 0, "position": 2 * REQUESTS}
        done = pilotage("night", "--json")
        assert done.returncode == 0, done.stderr
        (night,) = json.loads(done.stdout)
        assert (night["verdict"], night["version"], night["rounds"]) == ("published", "000001", REQUESTS)

        def swapped() -> dict | None:
            found = http.post("/route", json={"prompt": "Why is the sky blue?"}).json()
            return found if found["policy"] == "000001" else None

        over_http = wait_for(swapped)
        assert sum(over_http["probabilities"].values()) == 1.0
        (listed,) = http.get("/snapshots").json()
        assert (listed["serving"], listed["share"]) == (True, 0.5)
        story = http.get(f"/decisions/{over_http['decision_id']}").json()
        assert story["replays"] is True

    async def ask() -> tuple[str, str]:
        async with FakeDiscord() as discord:
            point(discord.port)
            async with running(World(home, config), discord, adapters={"replay": replay}) as bot:
                for author in range(40):
                    said = await bot.asked(MENTION + replay.prompts[0], author=str(200700000000001000 + author))
                    if bot.decisions()[-1].policy != "explore":
                        break
                return said["content"], bot.decisions()[-1].policy

    content, policy = asyncio.run(ask())
    assert policy == "000001"
    assert "-# " in content

    pilotage("load")
    monkeypatch.setenv("PILOTAGE_CONFIG", str(ROOT / "pilotage.toml"))
    page = AppTest.from_file(str(dashboard.__path__[0]) + "/app.py", default_timeout=120.0).run()
    assert not page.exception
    shown = {metric.label: metric for metric in page.metric}
    assert shown["Active policy"].value == "explore"
    assert shown["Active policy"].delta == "000001 serves 50 % of users"
    with home.open_record() as record:
        entries = [entry for _, entry in rows(record)]
    today = max(entry.time for entry in entries if isinstance(entry, Decision)) // 86_400.0
    decided = {e.id for e in entries if isinstance(e, Decision) and e.time // 86_400.0 == today}
    rewarded = {e.decision_id for e in entries if isinstance(e, Outcome) and e.quality is not None} & decided
    assert shown["Feedback rate"].delta == f"{len(rewarded):,} of {len(decided):,} decisions have a reward"
