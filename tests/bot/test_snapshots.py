"""The bot serves the newest snapshot that it can believe, and says once what is wrong with another."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from bandits.features import width
from bandits.learners.cost import CostModel
from bandits.learners.linear_policy import LinearPolicy, PriceCurve
from bandits.learners.scaling import Scaler
from tests.bot.conftest import ARMS, CODE, LONG, MENTION, PRICES, QUESTION, fixed


def test_a_new_snapshot_changes_decisions(world, play):
    """What is published while the bot runs serves from then on, without a restart."""
    world.publish(fixed("small"))

    async def scene(fake, bot):
        await bot.asked(MENTION + QUESTION)
        world.publish(fixed("large"))
        await fake.until(lambda: bot.server.router.serving.version == "000002")
        await bot.asked(MENTION + QUESTION)
        assert [(d.policy, d.arm) for d in bot.decisions()] == [("000001", "small"), ("000002", "large")]

    play(scene)


def test_the_first_snapshot_is_found_too(world, play):
    """A bot that started before any night takes what the first one publishes."""

    async def scene(fake, bot):
        await bot.asked(MENTION + QUESTION)
        world.publish(fixed("large"))
        await fake.until(lambda: bot.server.router.serving.version == "000001")
        await bot.asked(MENTION + QUESTION)
        assert [d.policy for d in bot.decisions()] == ["explore", "000001"]

    play(scene)


def test_a_tampered_snapshot_is_refused_and_logged_once(world, play, tmp_path, caplog):
    """The last good one keeps serving, and a good one after it serves; the log is not flooded meanwhile."""
    world.publish(fixed("small"))

    async def scene(fake, bot):
        world.publish_tampered(fixed("large"), tmp_path / "aside")
        await fake.until(lambda: bot.server.last_error is not None)
        looks = bot.server.looks
        await fake.until(lambda: bot.server.looks >= looks + 3)
        await bot.asked(MENTION + QUESTION)
        assert [(d.policy, d.arm) for d in bot.decisions()] == [("000001", "small")]
        assert caplog.text.count("no newer snapshot is served") == 1
        assert "sha256" in caplog.text

        world.publish(fixed("large"))
        await fake.until(lambda: bot.server.router.serving.version == "000003")

    play(scene)


def test_an_expiring_snapshot_is_logged_once(world, play, caplog):
    """Its message tells the time, so it is another one at each look."""
    world.publish(fixed("small"), expires=1.0)

    async def scene(fake, bot):
        await fake.until(lambda: bot.server.looks >= 4)
        assert caplog.text.count("no newer snapshot is served") == 1

    play(scene)


def test_a_fault_in_the_keys_does_not_stop_the_looking(world, play, caplog):
    """While others may write the keys nothing is trusted; once that is mended, the snapshot serves."""
    keys = world.place.root / "keys"
    world.place.root.mkdir()

    async def scene(fake, bot):
        keys.mkdir()
        keys.chmod(0o777)
        await fake.until(lambda: bot.server.faults >= 3)
        keys.chmod(0o700)
        world.publish(fixed("large"))
        await fake.until(lambda: bot.server.router.serving.version == "000001")
        assert caplog.text.count("no newer snapshot is served") == 1

    play(scene)


def test_another_process_has_the_same_policy(world, play):
    """From one snapshot two processes give one context the same probabilities, bit for bit."""
    rng, d = np.random.default_rng(1), width("text-1")
    scaler, cost = Scaler(np.full(d, 4.0), np.ones(d)), CostModel(np.zeros((3, d + 1)), PRICES)
    curve = PriceCurve(np.array([0.0, 1e3]), np.array([3e-4, 1e-4]))
    weights = rng.normal(scale=0.01, size=(3, d + 1))
    weights[0, 0] = -1.0  # the longer a prompt, the worse the first arm
    world.publish(LinearPolicy(ARMS, "text-1", scaler, weights, cost, np.ones(3, np.bool_), PRICES, curve, 1e-3, 0.3))
    script = """
import json, sys
import numpy as np
from bandits.config import home, load_config
from bandits.features import text_context
from bandits.home import Home
from bandits.serving import Server
from bandits.types import Scope
place, asked = Home(home()), json.load(sys.stdin)
with place.open_record() as record:
    server = Server(place, load_config(), Scope("demo", "main", "model_routing"), record, np.random.default_rng(0))
policy = server.router.serving.policy
rows = [policy.probabilities(text_context(p)[None], np.array([a]), s)[0].tobytes().hex() for p, a, s in asked]
print(json.dumps([server.router.serving.version, rows]))
"""

    async def scene(_, bot):
        prompts = [QUESTION, LONG, CODE]
        for prompt in prompts:
            await bot.asked(MENTION + prompt)
        made = bot.decisions()
        asked = [(p, [a not in d.excluded for a in d.arms], d.pressure) for p, d in zip(prompts, made, strict=True)]
        other = subprocess.run(
            [sys.executable, "-c", script], input=json.dumps(asked), capture_output=True, text=True, check=True,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        )  # fmt: skip
        assert json.loads(other.stdout) == ["000001", [d.probabilities.tobytes().hex() for d in made]]
        assert len({d.probabilities.tobytes() for d in made}) > 1

    play(scene)
