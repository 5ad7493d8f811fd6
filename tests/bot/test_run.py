"""The command: what it needs, what it says when it lacks it, and one answer from the recording that comes with it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bandits.config import load_config
from bandits.errors import ConfigError
from bandits.ids import bare
from bandits.record.port import rows
from bandits.types import Decision
from bot.run import TOKEN, DiscordError, run
from bot.words import decision_of
from gateway.adapter import GatewayError
from gateway.providers import RECORDING
from gateway.replay import Replay
from tests.bot import fake_discord
from tests.bot.conftest import MENTION
from tests.bot.fake_discord import FakeDiscord

SHIPPED = Path(__file__).parents[2] / "pilotage.toml"


def test_without_a_token_it_says_where_to_get_one(world):
    with pytest.raises(ConfigError, match=rf"discord\.com/developers/applications .* set {TOKEN}"):
        run("demo", "main")
    assert not world.place.root.exists()


def test_an_unknown_workspace_is_refused_before_anything_runs(world):
    with pytest.raises(ConfigError, match="demo/other/model_routing; there are demo/main/model_routing"):
        run("demo", "other", token="t")


def test_a_recording_that_is_not_there_is_refused(world, tmp_path):
    with pytest.raises(GatewayError, match=r"none\.jsonl must be readable"):
        run("demo", "main", tmp_path / "none.jsonl", "t")


def test_the_recording_that_comes_along_has_every_arm():
    """Twelve prompts, and for each an answer of each model of pilotage.toml."""
    replay = Replay.read(RECORDING)
    assert len(replay.prompts) == 12
    for arm in load_config(SHIPPED).domains["model_routing"].arms:
        for prompt in replay.prompts:
            reply = replay.recorded(arm.model, prompt)
            assert reply.text
            assert not reply.text.startswith("[")
            assert 0.2 < reply.cost_usd / arm.usd_per_request < 1.5


def test_a_refused_token_is_a_fault_of_the_configuration(world, point, root_logger, monkeypatch):
    monkeypatch.setenv(TOKEN, "wrong")

    async def stage():
        async with FakeDiscord() as fake:
            point(fake.port)
            with pytest.raises(ConfigError, match="but Discord refused it; create one"):
                await asyncio.to_thread(run, "demo", "main")

    asyncio.run(stage())


def test_no_network_is_said_so(world, point, root_logger):
    async def port_of_nobody():
        async with FakeDiscord() as fake:
            return fake.port

    point(asyncio.run(port_of_nobody()))
    with pytest.raises(DiscordError, match="Discord must be reachable, but the network failed"):
        run("demo", "main", token="t")


def test_it_answers_until_discord_ends_it(world, point, root_logger, monkeypatch, capfd):
    """With the shipped configuration and recording; a code that allows no return ends it with its number."""
    monkeypatch.setenv("PILOTAGE_CONFIG", str(SHIPPED))
    prompt = Replay.read(RECORDING).prompts[0]

    async def stage():
        async with FakeDiscord() as fake:
            point(fake.port)
            running = asyncio.create_task(asyncio.to_thread(run, "demo", "main", None, f" {fake_discord.TOKEN}\n"))
            await fake.until(lambda: fake.identified == 1)
            fake.say(MENTION + prompt)
            await fake.until(lambda: len(fake.reactions) == 2)
            await fake.close_for_good(4004)
            with pytest.raises(DiscordError, match="closed it for good with code 4004"):
                await running
            return fake.of_bot()

    (reply,) = asyncio.run(stage())
    with world.place.open_record() as record:
        (decision,) = [entry for _, entry in rows(record) if isinstance(entry, Decision)]
    assert bare(decision_of(reply["content"])) == decision.id
    logged = capfd.readouterr().err
    assert "no model is called" in logged
    assert f"decision {decision.id} answered by {decision.arm}" in logged
    assert prompt not in logged
