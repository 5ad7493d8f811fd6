"""What was said while there was no session: Discord delivers again what a *resumed* session missed, a new one nothing.

Direct messages of such a gap are not found, since a new session does not list their channels.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

import discord

from bot.network import told

_log = logging.getLogger("bot")
_MOST = 100  # messages read back per channel

Channel = discord.TextChannel | discord.VoiceChannel | discord.StageChannel | discord.Thread


def newest(client: discord.Client) -> int:
    """Id of the newest message in any channel, 0 where all are empty. Ids of Discord rise with time."""
    return max((channel.last_message_id or 0 for channel in _channels(client)), default=0)


async def missed(client: discord.Client, since: int) -> AsyncIterator[discord.Message]:
    """The messages after id `since`, channel by channel, oldest first; a channel that may not be read is passed by."""
    for channel in _channels(client):
        if (channel.last_message_id or 0) <= since:
            continue
        try:
            async for message in channel.history(after=discord.Object(since), oldest_first=True, limit=_MOST):
                yield message
        except discord.HTTPException as error:
            _log.warning("what was missed in a channel could not be read: %s", told(error))


def _channels(client: discord.Client) -> list[Channel]:
    threads = [thread for guild in client.guilds for thread in guild.threads]
    return [channel for channel in [*client.get_all_channels(), *threads] if isinstance(channel, Channel)]
