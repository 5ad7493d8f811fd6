"""Start the bot: configuration, record, recording and token, then Discord until it is stopped."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from pathlib import Path

import aiohttp
import discord
import numpy as np

from bandits.config import load_config
from bandits.errors import ConfigError, PilotageError
from bandits.home import Home
from bandits.serving import Server
from bot.client import Bot
from bot.network import told
from gateway.answer import Gateway, open_gateway
from gateway.replay import Replay

_log = logging.getLogger("bot")

DOMAIN = "model_routing"
TOKEN = "PILOTAGE_DISCORD_TOKEN"  # noqa: S105  (the name of the variable)
_WHERE = f"create one at https://discord.com/developers/applications (Bot, Reset Token) and set {TOKEN}."


class DiscordError(PilotageError):
    """Discord cannot be reached, or ended the connection for good."""


def run(tenant: str, workspace: str, replay_path: Path | None = None, token: str | None = None) -> None:
    """Answer on Discord for one workspace until interrupted.

    replay_path: the recording that arms of a replay answer from; None: the one that comes with Pilotage.
    token: of the Discord application's bot; None: $PILOTAGE_DISCORD_TOKEN.
    Raises ConfigError (no token or a refused one, or a scope or a provider's key that is not configured),
    GatewayError (the recording), RecordError, and DiscordError.
    """
    token = (token or os.environ.get(TOKEN, "")).strip()
    if not token:
        raise ConfigError(f"the bot needs a token of Discord, but there is none; {_WHERE}")
    config, place = load_config(), Home.here()
    scope = config.scope(tenant, workspace, DOMAIN)
    gateway = open_gateway(config, replay_path)
    prompts = recorded(gateway, [arm.provider for arm in config.domains[DOMAIN].arms])
    discord.VoiceClient.warn_nacl = discord.VoiceClient.warn_dave = False  # it does not speak
    discord.utils.setup_logging(level=logging.INFO)  # not DEBUG: discord.py would log what people write
    if prompts is not None:
        _log.info("answers are replayed from a recording: no model is called")
    with (
        place.open_record() as record,
        place.open_ledger(config) or nullcontext() as ledger,
        suppress(KeyboardInterrupt),
    ):
        server = Server(place, config, scope, record, np.random.default_rng(), ledger=ledger)
        asyncio.run(_serve(Bot(server, gateway, prompts), token))


def recorded(gateway: Gateway, providers: Sequence[str]) -> dict[str, None] | None:
    """The prompts that all of `providers` can answer, in order, where each is a recording; None: one answers any."""
    replays = [adapter for name in dict.fromkeys(providers) if isinstance(adapter := gateway.adapters[name], Replay)]
    if len(replays) < len(set(providers)):
        return None
    return {prompt: None for prompt in replays[0].prompts if all(prompt in other.prompts for other in replays)}


async def _serve(bot: Bot, token: str) -> None:
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
