"""Facts about the one configuration: read whole or not at all, and every fault named with its place."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from bandits.config import Config, home, load_config, parse_config
from bandits.errors import ConfigError, InvalidNameError, UnknownArmError

SHIPPED = Path(__file__).parents[1] / "pilotage.toml"


def shipped() -> dict:
    return tomllib.loads(SHIPPED.read_text(encoding="utf-8"))


def test_the_shipped_file_is_valid():
    """What a newcomer starts with loads, and names the demo's scope."""
    assert [str(scope) for scope in load_config(SHIPPED).scopes()] == ["demo/main/model_routing"]


@pytest.mark.parametrize(
    ("path", "key", "nearest"),
    [
        (("domains", "model_routing", "arms", 1), "usd_per_requst", "usd_per_request"),
        (("domains", "model_routing"), "budget_usd", "budget_usd_per_request"),
        (("domains", "model_routing", "reward"), "agregate", "aggregate"),
        (("tenants", "demo"), "workspace", "workspaces"),
        (("night",), "trails", "trials"),
        ((), "domain", "domains"),
    ],
)
def test_an_unknown_key_is_named_with_its_place_and_the_nearest_known_one(path, key, nearest):
    """A misspelt setting must never be silently ignored."""
    data = shipped()
    here = data
    for step in path:
        here = here[step]
    here[key] = 1

    with pytest.raises(ConfigError) as caught:
        parse_config(data, "pilotage.toml")

    assert ".".join(map(str, (*path, key))) in str(caught.value)
    assert f"nearest known one is {nearest!r}" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["domains"]["model_routing"].update(floor=0.0), "floor"),
        (lambda d: d["domains"]["model_routing"].update(budget_usd_per_request=-1.0), "budget_usd_per_request"),
        (lambda d: d["domains"]["model_routing"].update(features="text-9"), "features must be one of text-1"),
        (lambda d: d["domains"]["model_routing"].update(arms=d["domains"]["model_routing"]["arms"][:1]), "arms"),
        (lambda d: d["domains"]["model_routing"]["arms"].append(d["domains"]["model_routing"]["arms"][0]), "distinct"),
        (lambda d: d.update(tenants={"a:b": {}}), "a:b"),
        (lambda d: d.update(tenants={}), "tenants"),
        (lambda d: d["tenants"]["demo"].update(workspaces=["../x"]), r"\.\./x"),
    ],
)
def test_a_value_out_of_range_is_named(change, message):
    """The reader of the message must know which line to mend."""
    data = shipped()
    change(data)

    with pytest.raises(ConfigError, match=message):
        parse_config(data, "pilotage.toml")


def test_all_faults_come_at_once():
    """Mending one must not merely reveal the next."""
    data = shipped()
    data["night"]["trails"] = 1
    data["domains"]["model_routing"]["floor"] = 2.0

    with pytest.raises(ConfigError, match=r"2 fault\(s\)"):
        parse_config(data, "pilotage.toml")


def test_a_missing_file_says_what_to_do(tmp_path):
    """Not a FileNotFoundError from the depths."""
    with pytest.raises(ConfigError, match="PILOTAGE_CONFIG"):
        load_config(tmp_path / "none.toml")


def test_broken_toml_is_a_configuration_error(tmp_path):
    """The parser's own words, and the file's name."""
    path = tmp_path / "broken.toml"
    path.write_text("[night\n")

    with pytest.raises(ConfigError, match=r"broken\.toml must be TOML"):
        load_config(path)


def test_an_unknown_arm_lists_the_known_ones():
    """And its text is a sentence, not a KeyError's repr."""
    domain = load_config(SHIPPED).domains["model_routing"]

    with pytest.raises(UnknownArmError) as caught:
        domain.arm("gpt-9")

    assert str(caught.value).startswith("arm must be one of llama-3-1-8b, mistral-large, gemini-2-5-pro")


def test_only_configured_scopes_are_served():
    """A well-formed name is not yet a tenant."""
    config = load_config(SHIPPED)

    with pytest.raises(ConfigError, match="there are demo/main/model_routing"):
        config.scope("demo", "other", "model_routing")
    with pytest.raises(InvalidNameError):
        config.scope("a:b", "main", "model_routing")


def test_only_configured_workspaces_are_worked_for():
    """Unknown tenants, unknown workspaces and impossible names, each with what there is."""
    config = load_config(SHIPPED)

    config.check_workspace("demo", "main")
    for tenant, workspace in (("nobody", "main"), ("demo", "elsewhere")):
        with pytest.raises(ConfigError, match="there are demo/main"):
            config.check_workspace(tenant, workspace)
    with pytest.raises(InvalidNameError):
        config.check_workspace("../x", "main")


def test_home_follows_the_environment(monkeypatch, tmp_path):
    """All state moves with one variable."""
    monkeypatch.setenv("PILOTAGE_HOME", str(tmp_path / "elsewhere"))

    assert home() == tmp_path / "elsewhere"


def test_the_configuration_cannot_be_changed_in_place():
    """Frozen, all the way in."""
    config: Config = load_config(SHIPPED)

    with pytest.raises(ValueError, match="frozen"):
        config.domains["model_routing"].floor = 0.5


def test_caps_are_read_and_checked():
    """None is no limit; a misspelt one, and one that no ledger can keep, are named."""
    data = shipped()
    assert load_config(SHIPPED).tenants["demo"].caps.usd_per_day is None
    data["tenants"]["demo"]["caps"] = {"usd_per_day": 5, "usd_per_month": 100.5}
    assert parse_config(data, "x").tenants["demo"].caps.usd_per_month == 100.5

    for caps, message in (
        ({"usd_per_dya": 1}, r"tenants\.demo\.caps\.usd_per_dya: .*'usd_per_day'"),
        ({"usd_per_day": 0}, "greater than 0"),
        ({"usd_per_day": 1e10}, "less than or equal to 1000000000"),
        ({"usd_per_user_day": float("inf")}, "usd_per_user_day"),
    ):
        data["tenants"]["demo"]["caps"] = caps
        with pytest.raises(ConfigError, match=message):
            parse_config(data, "pilotage.toml")


@pytest.mark.parametrize(
    ("learners", "message"),
    [
        (["linear", "offset_three"], "night.learners: .*unknown learner 'offset_three'; the nearest is 'offset_tree'"),
        (["offset_tree"], "must hold 'linear'"),
        (["linear", "linear"], "none twice"),
        ([], "must hold 'linear'"),
        ("linear", "night.learners"),
        ([["linear"]], "unknown learner"),
    ],
)
def test_learners_that_compete_are_known_and_have_one_to_beat(learners, message):
    """A name that is none is told with the nearest; the simplest is always among them."""
    data = shipped()
    data.setdefault("night", {})["learners"] = learners

    with pytest.raises(ConfigError, match=message):
        parse_config(data, "pilotage.toml")


def test_learners_can_be_chosen():
    """Each of them, or the simplest alone."""
    data = shipped()
    data.setdefault("night", {})["learners"] = ["linear", "offset_tree"]

    assert parse_config(data, "pilotage.toml").night.learners == ("linear", "offset_tree")
