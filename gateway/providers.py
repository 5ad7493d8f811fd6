"""The catalogue brought to life: adapters by the provider's name, and what a call cost by the catalogue's prices."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path

import gateway
from bandits.config import ArmConfig, Config
from bandits.settings.catalogue import ModelConfig, ProviderConfig, key_of
from gateway.adapter import Adapter, Usage
from gateway.replay import Replay

RECORDING = Path(gateway.__file__).parent / "examples" / "replay.jsonl"  # what a replay answers from by default


def open_adapters(
    config: Config,
    *,
    only: Collection[str] | None = None,
    recording: Path | None = None,
    connect_s: float | None = None,
    environ: Mapping[str, str] = os.environ,
) -> dict[str, Adapter]:
    """An adapter for each provider that an arm or a judge names, by the provider's name. No server is called yet.

    only: the providers to open instead; each must be configured.   recording: to answer from, where a provider of kind
    replay names none.   connect_s: seconds that a connection may take to come about; None: as the system has it.
    environ: where the keys are.
    Raises ConfigError where a key is missing or is none, GatewayError for a recording that cannot be read.
    """
    arms: list[ModelConfig] = [arm for domain in config.domains.values() for arm in domain.arms]
    arms += [domain.judge for domain in config.domains.values() if domain.judge is not None]
    names = sorted({arm.provider for arm in arms} if only is None else set(only))
    keys = {name: key_of(name, config.providers[name], environ) for name in names}  # all of them before any is opened
    plain = {name: {arm.model for arm in arms if arm.provider == name and not arm.sampling} for name in names}
    return {
        name: _open(name, config.providers[name], keys[name], plain[name], recording or RECORDING, connect_s)
        for name in names
    }


async def close_adapters(adapters: Mapping[str, Adapter]) -> None:
    """Let go of every connection."""
    for adapter in adapters.values():
        await adapter.close()


def cost(arm: ArmConfig, usage: Usage | None) -> float:
    """What a call cost, USD: its tokens at the catalogue's prices where both are known, else the arm's usual price.

    Input that the provider had read before costs `cached`; where the catalogue has no such price, as much as any input.
    """
    prices = arm.usd_per_million
    if prices is None or usage is None:
        return arm.usd_per_request
    cached = prices.input if prices.cached is None else prices.cached
    fresh = usage.input_tokens - usage.cached_tokens
    return (fresh * prices.input + usage.cached_tokens * cached + usage.output_tokens * prices.output) / 1e6


def _open(
    name: str, settings: ProviderConfig, key: str, plain: Collection[str], recording: Path, connect_s: float | None
) -> Adapter:
    if settings.kind == "replay":
        return Replay.read(settings.recording or recording)
    from gateway.live import open_live  # noqa: PLC0415 - httpx takes a while to load, and a recording needs none of it

    return open_live(name, settings, key, plain, connect_s)
