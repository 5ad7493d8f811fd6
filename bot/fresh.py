"""Keep a server on the newest good snapshot, in the background."""

from __future__ import annotations

import asyncio
import logging

from bandits.serving import Server

_log = logging.getLogger("bot")


async def keep_fresh(server: Server, every_s: float) -> None:
    """Look for a newer snapshot every `every_s` seconds, for ever, beside the event loop.

    A snapshot that does not verify leaves the last good one serving, and is logged once, not at each look.
    """
    known: str | None = None
    while True:
        try:
            if await asyncio.to_thread(server.refresh):
                _log.info("%s is now served by snapshot %s", server.router.scope, server.router.serving.version)
            fault = None if server.last_error is None else str(server.last_error)
        except Exception as error:  # a key file that others may write, say; the next look may find it mended
            fault = f"{type(error).__name__}: {error}"
        # What must hold stands before ", but"; what was found instead may be a time, and so another text at each look.
        rule = None if fault is None else fault.partition(", but")[0]
        if rule is not None and rule != known:
            _log.warning("no newer snapshot is served, %s stays: %s", server.router.serving.version, fault)
        known = rule
        await asyncio.sleep(min(every_s, server.pause_s))
