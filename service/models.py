"""The gateway to the models, opened at the first request that needs one: who only decides needs no provider's key."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from bandits.config import Config

if TYPE_CHECKING:
    from gateway.answer import Gateway


class Models:
    """Used from the event loop alone."""

    def __init__(self, config: Config) -> None:
        self._config = config

    @cached_property
    def gateway(self) -> Gateway:
        """Raises ConfigError (a provider's key is missing), GatewayError (a recording cannot be read)."""
        from gateway.answer import open_gateway  # noqa: PLC0415 - it brings httpx

        return open_gateway(self._config)

    async def close(self) -> None:
        """Wait for what is being recorded, and let go of all connections."""
        if "gateway" in self.__dict__:
            await self.gateway.close()
