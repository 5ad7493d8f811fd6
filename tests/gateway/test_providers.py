"""Facts about the catalogue: providers are what the configuration says, keys stay in the environment, prices add up."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandits.config import ArmConfig, Config, load_config, parse_config
from bandits.errors import ConfigError
from gateway.adapter import GatewayError, Usage
from gateway.live import Live
from gateway.providers import cost, open_adapters
from gateway.replay import Replay

ROOT = Path(__file__).parents[2]


def config(live: dict | None = None, /, **arm: object) -> Config:
    arms = [{"name": name, "model": name, "usd_per_request": 0.25} for name in ("a", "b")]
    arms[0] |= arm
    data = {"tenants": {"t": {}}, "domains": {"d": {"arms": arms, "budget_usd_per_request": 1.0}}}
    return parse_config(data | ({"providers": {"live": live}} if live else {}), "test")


def test_without_a_word_all_is_replayed():
    """The shipped configuration needs no key, and never loads the HTTP library."""
    adapters = open_adapters(load_config(ROOT / "pilotage.toml"), environ={})
    assert isinstance(adapters["replay"], Replay)
    assert list(adapters) == ["replay"]

    code = (
        "import sys; from bandits.config import load_config; from gateway.providers import open_adapters;"
        "open_adapters(load_config(), environ={}); print('httpx' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_only_providers_that_an_arm_names_are_opened():
    """A key for another need not be there."""
    live = {"kind": "openai", "key_env": "LIVE_KEY"}
    assert list(open_adapters(config(live), environ={})) == ["replay"]

    with pytest.raises(ConfigError, match="variable LIVE_KEY, which is not set"):
        open_adapters(config(live, provider="live"), environ={})

    adapters = open_adapters(config(live, provider="live"), environ={"LIVE_KEY": "k"})
    assert {name: type(one) for name, one in adapters.items()} == {"live": Live, "replay": Replay}


@pytest.mark.parametrize(
    ("kind", "host"),
    [
        ("openai", "https://api.openai.com/v1"),
        ("anthropic", "https://api.anthropic.com/v1"),
        ("gemini", "https://generativelanguage.googleapis.com/v1beta"),
    ],
)
def test_the_official_address_is_the_default(kind, host):
    """Where the configuration names none."""
    adapters = open_adapters(config({"kind": kind}, provider="live"), environ={})

    assert adapters["live"]._server._base_url == host


def test_a_recording_of_ones_own(tmp_path):
    """From the configuration, or from the command line where that is silent."""
    path = tmp_path / "r.jsonl"
    path.write_text('{"prompt": "p", "model": "a", "quality": 1, "cost_usd": 0}\n', encoding="utf-8")
    named = config({"kind": "replay", "recording": str(path)}, provider="live")

    assert open_adapters(named, environ={})["live"].prompts == ["p"]
    assert open_adapters(config(), recording=path, environ={})["replay"].prompts == ["p"]
    with pytest.raises(GatewayError, match=r"none\.jsonl"):
        open_adapters(config(), recording=tmp_path / "none.jsonl", environ={})


@pytest.mark.parametrize(
    ("provider", "arm", "message"),
    [
        (None, {"provider": "nobody"}, r"must be one of replay, but d/a names 'nobody'; add \[providers.nobody\]"),
        ({"kind": "mistral"}, {}, "providers.live.kind"),
        ({"kind": "openai", "base_url": "ftp://x"}, {}, "base_url must be http"),
        ({"kind": "openai", "base_url": "https://me:pw@x/v1"}, {}, "base_url must be http"),
        ({"kind": "openai", "base_url": "https:///v1"}, {}, "base_url must be http"),
        ({"kind": "replay", "key_env": "K"}, {}, "calls nobody"),
        ({"kind": "openai", "recording": "r.jsonl"}, {}, "only a provider of kind replay"),
        ({"kind": "openai", "max_reply_bytes": 0}, {}, "max_reply_bytes"),
        (None, {"usd_per_million": {"input": 1.0, "output": 2.0}}, "prices and their date belong together"),
        (None, {"prices_as_of": "2026-11-01"}, "prices and their date belong together"),
        (None, {"usd_per_million": {"input": -1.0, "output": 2.0}, "prices_as_of": "2026-11-01"}, "input"),
        (None, {"usd_per_milion": {}}, "nearest known one is 'usd_per_million'"),
    ],
)
def test_a_catalogue_that_cannot_be(provider, arm, message):
    """Named with its place."""
    with pytest.raises(ConfigError, match=message):
        config(provider, **arm)


def test_a_key_in_place_of_its_variables_name_is_not_repeated():
    """The error would show it to whoever reads the log."""
    with pytest.raises(ConfigError, match="name of an environment variable") as caught:
        config({"kind": "openai", "key_env": "sk-canary"})

    assert "canary" not in str(caught.value)


PRICES = {"usd_per_million": {"input": 2.0, "output": 10.0, "cached": 0.5}, "prices_as_of": "2026-11-01"}


def arm(**more: object) -> ArmConfig:
    return ArmConfig.model_validate({"name": "a", "model": "m", "usd_per_request": 0.25} | more)


@pytest.mark.parametrize(
    ("more", "usage", "usd"),
    [
        (PRICES, Usage(1_000_000, 0), 2.0),
        (PRICES, Usage(0, 1_000_000), 10.0),
        (PRICES, Usage(1_000_000, 100_000, 400_000), 1.2 + 0.2 + 1.0),
        (PRICES, Usage(0, 0), 0.0),
        (PRICES, None, 0.25),
        ({}, Usage(1_000_000, 0), 0.25),
    ],
)
def test_what_a_call_cost(more, usage, usd):
    """Tokens times prices; the usual price of a request where one of them is unknown."""
    assert cost(arm(**more), usage) == pytest.approx(usd, rel=1e-12)


@given(st.integers(0, 10**7), st.integers(0, 10**7), st.integers(0, 10**7))
def test_without_a_price_of_its_own_what_was_cached_costs_as_any_input(given_tokens, cached, made):
    """No discount is assumed."""
    plain = {"usd_per_million": {"input": 2.0, "output": 10.0}, "prices_as_of": "2026-11-01"}
    usage = Usage(given_tokens + cached, made, cached)

    assert cost(arm(**plain), usage) == pytest.approx(cost(arm(**plain), Usage(given_tokens + cached, made)), rel=1e-12)
    assert cost(arm(**PRICES), usage) <= cost(arm(**plain), usage) + 1e-12


def test_the_examples_of_the_shipped_file_are_valid():
    """What its comments show, uncommented."""
    text = (ROOT / "pilotage.toml").read_text(encoding="utf-8")
    _, marked = text.split("# Live models", 1)
    block = marked.split("\n\n", 1)[0].split("\n")[1:]
    lines = [line.removeprefix("# ") for line in block if line.startswith("# ") and not line.startswith("# - ")]
    data = tomllib.loads("\n".join(line for line in lines if line))

    shipped = tomllib.loads(text)
    shipped["providers"] = data["providers"]
    shipped["domains"]["model_routing"]["arms"] += data["domains"]["model_routing"]["arms"]
    parsed = parse_config(shipped, "examples")

    assert set(parsed.providers) == {"replay", "openai", "anthropic", "gemini", "local"}
    assert all(one.usd_per_million for one in parsed.domains["model_routing"].arms if one.provider != "replay")
