"""A home, a stage with a fake Discord, and the real bot on it. Nothing here leaves the loopback interface."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import discord
import numpy as np
import pytest
import yarl

from bandits.config import Config, load_config
from bandits.home import Home
from bandits.learners.baselines import ContextFree
from bandits.policy import Policy
from bandits.record.port import Record, rows
from bandits.serving import Server
from bandits.snapshots.keys import signing_key
from bandits.snapshots.manifest import ARRAYS
from bandits.snapshots.publishing import publish
from bandits.types import Decision, Outcome, Scope
from bot.client import Bot
from gateway.adapter import Adapter
from gateway.answer import Gateway
from gateway.replay import Recording, Replay
from tests.bot.fake_discord import ALICE, BOT, CHANNEL, TIMEOUT_S, TOKEN, FakeDiscord, Json

SCOPE = Scope("demo", "main", "model_routing")
ARMS = ("small", "middle", "large")
PRICES = np.array([1e-4, 2e-4, 3e-4])
QUESTION, LONG, CODE, PARTLY = "Why is the sky blue?", ("Why? " * 780).strip(), "Show me much code", "And in part?"
MENTION = f"<@{BOT}> "
_CONFIG = """
[tenants.demo]
[domains.model_routing]
floor = 0.3
budget_usd_per_request = 1e-3
""" + "".join(
    f'[[domains.model_routing.arms]]\nname = "{arm}"\nmodel = "maker/{arm}"\nusd_per_request = {price}\n'
    for arm, price in zip(ARMS, PRICES, strict=True)
)


def replay() -> Replay:
    """What each model said to three prompts; PARTLY was recorded of a model that is no arm."""
    code = "Here:\n\n```python\n" + "x = 1  # one\n" * 300 + "```\n\nThat is all."
    recordings = {
        prompt: {
            f"maker/{arm}": Recording(
                0.5 + 0.1 * i, float(PRICES[i]), code if prompt == CODE else f"{arm}: {prompt[:9]}"
            )
            for i, arm in enumerate(ARMS)
        }
        for prompt in (QUESTION, LONG, CODE)
    }
    return Replay(recordings | {PARTLY: {"maker/gone": Recording(1.0, 0.0, "no arm")}})


def fixed(arm: str) -> ContextFree:
    """A policy that plays `arm`, but for a floor too small to meet."""
    values = np.array([float(name == arm) for name in ARMS])
    return ContextFree("fixed", ARMS, "text-1", values, PRICES, 1e-3, 1e-9)


@dataclass(frozen=True)
class World:
    """A home of its own for a test."""

    place: Home
    config: Config

    def publish(self, policy: Policy, home: Home | None = None, expires: float = 4e9) -> str:
        """Publish a policy as a night does; its version."""
        root, key = (home or self.place).snapshots, signing_key(self.place.root)
        more = {"position": 0, "parent": None, "evidence": {}, "created": 0.0, "expires": expires}
        return publish(root, SCOPE, policy.freeze(), key=key, **more).version

    def publish_tampered(self, policy: Policy, scratch: Path) -> str:
        """Put a snapshot in place, in one rename, that was changed after it was signed; its version."""
        aside = Home(scratch)
        shutil.copytree(self.place.snapshots, aside.snapshots)
        version = self.publish(policy, aside)
        folder = aside.snapshots / str(SCOPE) / version
        data = bytearray((folder / ARRAYS).read_bytes())
        data[-1] ^= 1
        (folder / ARRAYS).write_bytes(data)
        folder.rename(self.place.snapshots / str(SCOPE) / version)
        return version


class ObservedServer(Server):
    """The real server; tells the stage of each look for a newer snapshot."""

    looks = faults = 0
    tell: Callable[[], object] | None = None

    def refresh(self) -> bool:
        try:
            return super().refresh()
        finally:
            self.looks += 1
            self.faults += self.last_error is not None
            if self.tell is not None:
                self.tell()


class ObservedBot(Bot):
    """The real bot; counts what it is done with, and tells the stage."""

    def __init__(self, fake: FakeDiscord, server: ObservedServer, record: Record, *args: Any, **options: Any) -> None:
        super().__init__(server, *args, **options)
        self.fake, self.server, self.record, self.done = fake, server, record, Counter[str]()
        loop = asyncio.get_running_loop()
        server.tell = lambda: loop.is_closed() or loop.call_soon_threadsafe(fake.notify)

    async def on_message(self, message: discord.Message) -> None:
        await super().on_message(message)
        self._did(str(message.id))

    async def on_raw_reaction_add(self, payload: discord.RawReactionActionEvent) -> None:
        await super().on_raw_reaction_add(payload)
        self._did(f"{payload.user_id} {payload.emoji} {payload.message_id}")

    async def on_ready(self) -> None:
        await super().on_ready()
        self._did("ready")

    async def before_identify_hook(self, shard_id: int | None, *, initial: bool = False) -> None:
        """Discord asks for five seconds between two sessions; the fake does not."""

    def _did(self, what: str) -> None:
        self.done[what] += 1
        self.fake.notify()

    def decisions(self) -> list[Decision]:
        """Decisions in the record."""
        return [entry for _, entry in rows(self.record) if isinstance(entry, Decision)]

    def votes(self) -> list[Outcome]:
        """Votes in the record, in its order."""
        return [entry for _, entry in rows(self.record) if isinstance(entry, Outcome) and entry.vote is not None]

    async def asked(self, text: str, **fields: Any) -> Json:
        """Say `text`, and return the last message that the bot answered with, once its buttons are under it."""
        said = self.fake.say(text, **fields)
        await self.fake.until(lambda: self.done[said] > 0)
        return self.fake.of_bot(fields.get("channel", CHANNEL))[-1]

    async def voted(self, message_id: str, emoji: str, author: str = ALICE) -> None:
        """React, and return when the bot is done with that."""
        self.fake.react(message_id, emoji, author=author)
        await self.fake.until(lambda: self.done[f"{author} {emoji} {message_id}"] > 0)


@asynccontextmanager
async def running(
    world: World, fake: FakeDiscord, adapters: Mapping[str, Adapter] | None = None, **options: Any
) -> AsyncIterator[ObservedBot]:
    """The bot on the fake Discord, ready."""
    recorded = replay()
    with world.place.open_record() as record:
        server = ObservedServer(world.place, world.config, SCOPE, record, np.random.default_rng(7))
        gateway = Gateway({"replay": recorded} if adapters is None else adapters, world.config.gateway)
        prompts = recorded.prompts if adapters is None else None
        quick = {"refresh_s": 0.01, "pauses_s": (0.01, 0.01), "guild_ready_timeout": 0.05}
        bot = ObservedBot(fake, server, record, gateway, prompts, **(quick | options))
        task = asyncio.create_task(bot.start(TOKEN))
        try:
            await fake.until(lambda: bot.done["ready"] > 0)
            yield bot
        finally:
            await bot.close()
            await asyncio.wait_for(task, TIMEOUT_S)
            server.tell = None


Scene = Callable[[FakeDiscord, ObservedBot], Awaitable[None]]


@pytest.fixture
def point(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Point discord.py at a port of this machine, until the test is over."""

    def to(port: int) -> None:
        monkeypatch.setattr(discord.http.Route, "BASE", f"http://127.0.0.1:{port}/api/v10")
        address = yarl.URL(f"ws://127.0.0.1:{port}/gateway")
        monkeypatch.setattr(discord.gateway.DiscordWebSocket, "DEFAULT_GATEWAY", address)

    return to


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """An empty home and a small configuration."""
    (tmp_path / "pilotage.toml").write_text(_CONFIG)
    monkeypatch.setenv("PILOTAGE_CONFIG", str(tmp_path / "pilotage.toml"))
    monkeypatch.setenv("PILOTAGE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("PILOTAGE_DISCORD_TOKEN", raising=False)
    return World(Home(tmp_path / "home"), load_config())


@pytest.fixture
def play(world: World, point: Callable[[int], None], caplog: pytest.LogCaptureFixture) -> Callable[..., None]:
    """Play a scene with the bot on the fake Discord."""
    caplog.set_level(logging.INFO)

    def play(scene: Scene, **options: Any) -> None:
        async def stage() -> None:
            async with FakeDiscord() as fake:
                point(fake.port)
                async with running(world, fake, **options) as bot:
                    await scene(fake, bot)

        asyncio.run(stage())

    return play


@pytest.fixture
def root_logger() -> Iterator[None]:
    """Leave the root logger as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
