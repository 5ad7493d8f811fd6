"""Patience with the network, and failures told without what they carry."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import aiohttp
import discord

PAUSES_S = (1.0, 2.0, 4.0, 8.0, 16.0)  # between attempts; Discord remembers a nonce for minutes
_T = TypeVar("_T")


async def patiently(request: Callable[[], Awaitable[_T]], pauses_s: Sequence[float]) -> _T:
    """The result of a request to Discord, made again after each pause while the network fails.

    discord.py itself waits out rate limits and repeats what Discord's servers failed at; what Discord refuses in the
    end is raised as discord.HTTPException, and a network that stays away as OSError or aiohttp.ClientError.
    """
    for pause in pauses_s:
        try:
            return await request()
        except (OSError, aiohttp.ClientError):
            await asyncio.sleep(pause)
    return await request()


def told(error: BaseException | None) -> str:
    """What failed and where, for a log: an error's own text may quote a message, so only Discord's numbers are kept."""
    if isinstance(error, discord.HTTPException):
        return f"Discord answered {error.status} (code {error.code})"
    if isinstance(error, OSError | aiohttp.ClientError):
        return f"the network failed ({type(error).__name__})"
    trace = "" if error is None else "".join(traceback.format_tb(error.__traceback__))
    return f"{type(error).__name__}\n{trace}"
