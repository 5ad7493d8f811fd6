"""Start the bot: configuration, record, recording and token, then Discord until it is stopped."""

from __future__ import annotations

import asyncio
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from pathlib import Path

import aiohttp
import discord
import numpy as np

import gateway
from bandits.config import load_config
from bandits.errors import ConfigError, PilotageError
from bandits.serving import Home, Server
from bot.client import Bot
from bot.network import told
from gateway.replay import Replay

_log = logging.getLogger("bot")

DOMAIN = "model_routing"
TOKEN = "PILOTAGE_DISCORD_TOKEN"  # noqa: S105  (the name of the variable)
RECORDING = Path(gateway.__file__).parent / "examples" / "replay.jsonl"
_ANSWERS = 32  # at a time: an answer waits for its model in a thread of its own
_WHERE = f"create one at https://discord.com/developers/applications (Bot, Reset Token) and set {TOKEN}."


class DiscordError(PilotageError):
    """Discord cannot be reached, or ended the connection for good."""


def run(tenant: str, workspace: str, replay_path: Path | None = None, token: str | None = None) -> None:
    """Answer on Discord for one workspace until interrupted.

    replay_path: the recording to answer from; None: the one that comes with Pilotage.
    token: of the Discord application's bot; None: $PILOTAGE_DISCORD_TOKEN.
    Raises ConfigError (no token or a refused one, or a scope that is not configured), GatewayError (the recording),
    RecordError, and DiscordError.
    """
    token = (token or os.environ.get(TOKEN, "")).strip()
    if not token:
        raise ConfigError(f"the bot needs a token of Discord, but there is none; {_WHERE}")
    config, place = load_config(), Home.here()
    scope = config.scope(tenant, workspace, DOMAIN)
    replay = Replay.read(replay_path or RECORDING)
    discord.VoiceClient.warn_nacl = discord.VoiceClient.warn_dave = False  # it does not speak
    discord.utils.setup_logging(level=logging.INFO)  # not DEBUG: discord.py would log what people write
    _log.info("answers are replayed from %s: no model is called", replay_path or RECORDING)
    with (
        place.open_record() as record,
        place.open_ledger(config) or nullcontext() as ledger,
        suppress(KeyboardInterrupt),
    ):
        server = Server(place, config, scope, record, np.random.default_rng(), ledger=ledger)
        asyncio.run(_serve(Bot(server, replay, dict.fromkeys(replay.prompts)), token))


async def _serve(bot: Bot, token: str) -> None:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_ANSWERS))
    try:
        async with bot:
            await bot.start(token)
    except discord.LoginFailure:
        raise ConfigError(f"the bot needs a token that Discord accepts, but Discord refused it; {_WHERE}") from None
    except discord.ConnectionClosed as error:
        raise DiscordError(
            f"the connection to Discord must stay open, but Discord closed it for good with code {error.code}; look "
            "the code up at https://discord.com/developers/docs/topics/opcodes-and-status-codes and start again."
        ) from error
    except (discord.HTTPException, aiohttp.ClientError, OSError) as error:
        raise DiscordError(
            f"Discord must be reachable, but {told(error)}; check the network and start again."
        ) from error
