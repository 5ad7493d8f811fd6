"""The one typed configuration: pilotage.toml, checked whole before anything runs.

An unknown key is an error that names the nearest known one. PILOTAGE_CONFIG names another file;
PILOTAGE_HOME another folder for all state (record, warehouse, snapshots, keys, Prefect's own home);
PILOTAGE_RECORD a record elsewhere, on a PostgreSQL server.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator

from bandits.errors import ConfigError, InvalidNameError, UnknownArmError
from bandits.features import width
from bandits.learners.choice import LEARNERS, Learner
from bandits.money.budget import affordable
from bandits.settings.caps import CapsConfig
from bandits.settings.catalogue import ModelConfig, ProviderConfig
from bandits.settings.conversation import ConversationConfig
from bandits.settings.embedding import EmbeddingConfig
from bandits.settings.experiments import ExperimentConfig, HoldbackConfig, shares_of
from bandits.settings.gateway import GatewayConfig
from bandits.settings.judge import JudgeConfig
from bandits.settings.limits import RatesConfig, ServiceConfig
from bandits.settings.naming import named
from bandits.settings.pilot import PilotConfig
from bandits.settings.reward import RewardConfig
from bandits.settings.rollout import RolloutConfig
from bandits.settings.tuning import TuningConfig
from bandits.types import Scope, valid_name

Probability = Annotated[float, Field(gt=0.0, lt=1.0)]
Dollars = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
Seconds = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
Weight = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ArmConfig(ModelConfig):
    """One arm of a domain: for `model_routing` a model of a provider."""

    name: str
    usd_per_request: Dollars = Field(description="typical price of one request, used until the log knows better")

    @field_validator("name")
    @classmethod
    def _name(cls, value: str) -> str:
        return valid_name(value, "arm")


class DomainConfig(_Strict):
    """One kind of decision: its arms, context, reward and constraints."""

    arms: tuple[ArmConfig, ...] = Field(min_length=2)
    features: str = "text-1"
    floor: Probability = Field(default=0.02, description="probability shared among the allowed arms")
    budget_usd_per_request: Dollars
    burst: int = Field(default=50, ge=1, description="requests' worth of budget that may be spent ahead of time")
    half_life_days: float | None = Field(
        default=None, gt=0.0, allow_inf_nan=False, description="age at which an event counts half; none: all the same"
    )
    between_nights: Literal["still", "watch", "learn"] = Field(
        default="watch",
        description="still: what was published; watch: less what broke since; learn: and with each arm's level since",
    )
    reward: RewardConfig = RewardConfig()
    conversations: ConversationConfig = ConversationConfig()
    judge: JudgeConfig | None = Field(default=None, description="a model that judges some of the answers; none: nobody")
    experiments: dict[str, ExperimentConfig] = {}
    holdback: HoldbackConfig | None = Field(default=None, description="users who are served without any learning")
    rollout: RolloutConfig | None = Field(default=None, description="left out: as [rollout] says")

    @field_validator("features")
    @classmethod
    def _known(cls, value: str) -> str:
        try:
            width(value)
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return value

    @model_validator(mode="after")
    def _distinct(self) -> DomainConfig:
        names = [arm.name for arm in self.arms]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"arms must have distinct names, but {', '.join(twice)} stands twice")
        return self

    @model_validator(mode="after")
    def _playable(self) -> DomainConfig:
        """A variant that the router could never play would be an experiment of nothing."""
        fits = affordable(np.array([arm.usd_per_request for arm in self.arms]), self.floor, self.budget_usd_per_request)
        played = [one.policy for each in self.experiments.values() for one in each.variants.values()]
        for policy in [*played, *([self.holdback.policy] if self.holdback else [])]:
            shares = shares_of(policy, self.arm_names) or (0.0,) * len(self.arms)
            dear = [arm for arm, share, fit in zip(self.arm_names, shares, fits, strict=True) if share and not fit]
            if dear:
                raise ValueError(
                    f"a variant must play arms that the budget allows to explore, but {policy!r} plays {dear[0]}; "
                    "raise budget_usd_per_request, or leave the arm out"
                )
        if self.holdback is not None and self.holdback.policy == "stable":
            raise ValueError("a holdback's policy must be explore, fixed:ARM or mix:ARM=SHARE,…, which never learn")
        if "holdback" in [valid_name(name, "experiment") for name in self.experiments]:
            raise ValueError("an experiment must not be called holdback, which is what [domains.X.holdback] declares")
        return self

    @property
    def arm_names(self) -> tuple[str, ...]:
        """Names of the arms, in the order that actions index."""
        return tuple(arm.name for arm in self.arms)

    def arm(self, name: str) -> ArmConfig:
        """The arm called `name`; raises UnknownArmError that lists those there are."""
        for arm in self.arms:
            if arm.name == name:
                return arm
        raise UnknownArmError(f"arm must be one of {', '.join(self.arm_names)}, but got {name!r}.")


class TenantConfig(_Strict):
    """One tenant and its workspaces; nothing crosses from one to another."""

    workspaces: tuple[str, ...] = ("main",)
    caps: CapsConfig = CapsConfig()
    rates: RatesConfig = RatesConfig()
    retention_days: float | None = Field(default=None, gt=0.0, description="older decisions are erased; none: never")
    store_prompts: bool = Field(default=False, description="keep prompts, sealed with the key of the person who asked")

    @field_validator("workspaces")
    @classmethod
    def _names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(valid_name(name, "workspace") for name in value)


class NightConfig(_Strict):
    """The nightly work: the search, the gate, and what a snapshot promises."""

    trials: int = Field(default=16, ge=1, description="trials of the Optuna study")
    learners: tuple[Learner, ...] = Field(
        default=LEARNERS, description="those that compete for a scope; linear, the simplest, is always one"
    )
    share: bool = Field(
        default=False, description="learn also from the same domain in the tenant's other workspaces, if that helps"
    )
    seed: int = 0
    alpha: Probability = Field(default=0.05, description="error rate of the gate, spent over the nights")
    min_rounds: int = Field(default=200, ge=2, description="fewer rounds with a reward train nothing")
    user_share: float = Field(
        default=0.05,
        gt=0.0,
        le=1.0,
        description="of the rounds, that one user may teach; even shares where people are fewer; 1: no cap",
    )
    expires_days: float = Field(default=30.0, gt=0.0, description="a snapshot older than this is refused")
    cluster: str | None = Field(
        default=None,
        pattern=r"^(tcp|tls|ws|wss)://[^\s/]+:[0-9]+$",
        description="address of a Dask scheduler that folds the log, tcp://host:8786; none: this process",
    )

    @field_validator("learners", mode="before")
    @classmethod
    def _learners(cls, value: Any) -> Any:  # noqa: ANN401 - whatever stands there
        for name in value if isinstance(value, list | tuple) else ():
            if name not in LEARNERS:
                near = difflib.get_close_matches(str(name), LEARNERS, n=1, cutoff=0.0)[0]
                raise ValueError(f"unknown learner {name!r}; the nearest is {near!r} (known: {', '.join(LEARNERS)})")
        return value

    @field_validator("learners")
    @classmethod
    def _incumbent(cls, value: tuple[Learner, ...]) -> tuple[Learner, ...]:
        if "linear" not in value or len(set(value)) < len(value):
            raise ValueError("learners must hold 'linear', which the others have to beat, and none twice")
        return value


class RecordConfig(_Strict):
    """Where the record lies."""

    url: SecretStr | None = Field(default=None, description="postgresql+psycopg://…; none: SQLite in the home")


class BackupConfig(_Strict):
    """Where and for how long `maintain` keeps backups."""

    folder: Path | None = Field(default=None, description="another disk, best; none: no backups")
    keep_days: float = Field(default=30.0, gt=0.0, allow_inf_nan=False, description="older backups are removed")


class Config(_Strict):
    """The whole file."""

    tenants: dict[str, TenantConfig] = Field(min_length=1)
    domains: dict[str, DomainConfig] = Field(min_length=1)
    night: NightConfig = NightConfig()
    tuning: TuningConfig = TuningConfig()
    record: RecordConfig = RecordConfig()
    backup: BackupConfig = BackupConfig()
    service: ServiceConfig = ServiceConfig()
    pilot: PilotConfig = PilotConfig()
    gateway: GatewayConfig = GatewayConfig()
    providers: dict[str, ProviderConfig] = Field(default={}, validate_default=True)
    embedding: EmbeddingConfig = EmbeddingConfig()
    rollout: RolloutConfig = RolloutConfig()

    @field_validator("tenants", "domains", "providers")
    @classmethod
    def _names(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name in value:
            valid_name(name, "name")
        return value

    @field_validator("providers")
    @classmethod
    def _replayed(cls, value: dict[str, ProviderConfig]) -> dict[str, ProviderConfig]:
        return {"replay": ProviderConfig(kind="replay")} | value

    @model_validator(mode="after")
    def _offered(self) -> Config:
        for domain, settings in self.domains.items():
            named = [(arm.name, arm.provider) for arm in settings.arms]
            for name, provider in [*named, *([("judge", settings.judge.provider)] if settings.judge else [])]:
                if provider not in self.providers:
                    raise ValueError(
                        f"an arm's provider must be one of {', '.join(sorted(self.providers))}, "
                        f"but {domain}/{name} names {provider!r}; add [providers.{provider}]"
                    )
        return self

    @model_validator(mode="after")
    def _summarised(self) -> Config:
        model = self.pilot.summary
        found = None if model is None else named(model, self.domains)
        domain = None if found is None or found.workspace is not None else self.domains.get(found.domain)
        if model is not None and (domain is None or domain.features.startswith("vector-")):
            read = ", ".join(name for name, one in self.domains.items() if not one.features.startswith("vector-"))
            raise ValueError(
                f"[pilot] summary must be auto, auto:DOMAIN, or an arm or a model by name, of a domain that reads text "
                f"({read or 'there is none'}), but got {model!r}; name one, or leave it out"
            )
        return self

    def scopes(self) -> list[Scope]:
        """Every scope that the configuration names, sorted."""
        return sorted(
            Scope(tenant, workspace, domain)
            for tenant, settings in self.tenants.items()
            for workspace in settings.workspaces
            for domain in self.domains
        )

    def rollout_of(self, scope: Scope) -> RolloutConfig:
        """How snapshots of a scope are rolled out."""
        return self.domains[scope.domain].rollout or self.rollout

    def siblings(self, scope: Scope) -> list[Scope]:
        """The same domain in the other workspaces of the tenant, where [night] share allows to learn from them."""
        mine = (scope.tenant, scope.domain)
        return [one for one in self.scopes() if self.night.share and (one.tenant, one.domain) == mine and one != scope]

    def check_workspace(self, tenant: str, workspace: str) -> None:
        """Raise ConfigError, or InvalidNameError, unless the tenant is configured and has this workspace."""
        settings = self.tenants.get(valid_name(tenant, "tenant"))
        if settings is None or valid_name(workspace, "workspace") not in settings.workspaces:
            known = ", ".join(f"{name}/{each}" for name, one in sorted(self.tenants.items()) for each in one.workspaces)
            raise ConfigError(
                f"tenant and workspace must be configured, but got {tenant}/{workspace}; there are {known}. "
                "Add it to pilotage.toml."
            )

    def scope(self, tenant: str, workspace: str, domain: str) -> Scope:
        """The scope, if it is configured; raises ConfigError that lists what is there."""
        scope = Scope(tenant, workspace, domain)
        if scope not in self.scopes():
            known = ", ".join(map(str, self.scopes()))
            raise ConfigError(f"scope must be configured, but got {scope}; there are {known}. Add it to pilotage.toml.")
        return scope


def home() -> Path:
    """The folder of all state: $PILOTAGE_HOME, or .pilotage where the command runs."""
    return Path(os.environ.get("PILOTAGE_HOME", ".pilotage")).absolute()


def config_path() -> Path:
    """The configuration file: $PILOTAGE_CONFIG, or pilotage.toml where the command runs."""
    return Path(os.environ.get("PILOTAGE_CONFIG", "pilotage.toml"))


def record_url() -> str | None:
    """The URL of the record: $PILOTAGE_RECORD, or [record] url; None where neither names one. Raises ConfigError.

    The variable is the place for a URL with a password, which a file would show to whoever reads it.
    """
    if given := os.environ.get("PILOTAGE_RECORD"):
        return given
    url = load_config().record.url if config_path().exists() else None
    return None if url is None else url.get_secret_value()


def load_config(path: Path | None = None) -> Config:
    """Read and check the configuration; raises ConfigError that names each fault and its place."""
    path = path or config_path()
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"the configuration must exist, but there is no {path}; run where pilotage.toml is, or set PILOTAGE_CONFIG."
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} must be TOML in UTF-8, but: {error}.") from None
    return parse_config(data, str(path))


def parse_config(data: Mapping[str, Any], source: str) -> Config:
    """Check `data` (parsed TOML); `source` names it in errors."""
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        faults = [_fault(fault) for fault in error.errors()]
        raise ConfigError(f"{source} has {len(faults)} fault(s):\n" + "\n".join(f"  {f}" for f in faults)) from None
    except InvalidNameError as error:
        raise ConfigError(f"{source}: {error}") from None


def _fault(fault: Mapping[str, Any]) -> str:
    if not fault["loc"]:  # of the file as a whole, which is not shown again
        return f"{fault['msg']}."
    *parents, key = fault["loc"]
    place = ".".join(map(str, fault["loc"]))
    if fault["type"] != "extra_forbidden":
        got = "something else" if key == "key_env" else repr(fault["input"])  # it may be the key itself
        return f"{place}: {fault['msg']}, but got {got}."
    known = _keys_at(Config, tuple(parents))
    near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.0)
    hint = f"the nearest known one is {near[0]!r}" if near else "no key is known here"
    return f"{place}: unknown key {key!r}; {hint} (known: {', '.join(sorted(known))})."


def _keys_at(model: type[BaseModel], path: tuple[str | int, ...]) -> list[str]:
    """Keys that `model` knows at `path`, found by walking the annotations."""
    here: Any = model
    for step in path:
        fields = getattr(here, "model_fields", None)
        if fields is not None and step in fields:
            here = fields[str(step)].annotation
            here = next((a for a in getattr(here, "__args__", ()) if hasattr(a, "model_fields")), here)
    return list(getattr(here, "model_fields", {}))
