"""Prompts whose outcome is known for every model: what makes regret, hindsight and oracle computable.

Three sources: the package `paretobandit` (real prompts, judged rewards, dollar costs), an .npz file of vectors
(val_x val_r val_c test_x test_r test_c, and arms), or a folder with prompts.parquet and outcomes.parquet.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

import numpy as np

from bandits.config import ArmConfig, DomainConfig
from bandits.errors import PilotageError
from bandits.features import Request, context, width
from bandits.types import Context, Matrix
from gateway.replay import Recording, Replay


class DataError(PilotageError):
    """A table of outcomes is absent or not of the form that the docstring above gives."""


@dataclass(frozen=True, slots=True, eq=False)
class Day:
    """The requests of one day.   keys: unique names of the requests.   quality, cost (USD): (n, K)."""

    keys: tuple[str, ...]
    contexts: Context  # (n, d)
    quality: Matrix
    cost: Matrix
    texts: tuple[str, ...] = ()  # the prompts; none of a source that holds vectors

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True, slots=True, eq=False)
class OutcomeTable:
    """Two days of requests to the same K models."""

    models: tuple[str, ...]
    schema: str
    first: Day
    second: Day

    @property
    def arms(self) -> tuple[str, ...]:
        """Names of the models as the configuration can hold them."""
        return tuple(re.sub(r"[^a-z0-9]+", "-", model.split("/")[-1].lower()).strip("-") for model in self.models)

    def domain(self, budget: float) -> DomainConfig:
        """A domain of these models. An arm's catalogue price is its mean cost on day 0 to one digit: what a price
        list tells before the first request."""
        arms = tuple(
            ArmConfig(name=arm, model=model, usd_per_request=float(f"{price:.0e}"))
            for arm, model, price in zip(self.arms, self.models, self.first.cost.mean(axis=0), strict=True)
        )
        return DomainConfig(arms=arms, features=self.schema, budget_usd_per_request=budget)

    def replay(self) -> Replay:
        """An adapter that answers each request, by its key, with what was recorded for it."""
        return Replay(
            {
                key: {
                    model: Recording(float(q), float(c)) for model, q, c in zip(self.models, quality, cost, strict=True)
                }
                for day in (self.first, self.second)
                for key, quality, cost in zip(day.keys, day.quality, day.cost, strict=True)
            }
        )


def load_table(source: str, seed: int, arms: Sequence[str] | None = None, schema: str = "text-1") -> OutcomeTable:
    """The table of `source`: "paretobandit", FILE.npz or DIR (shuffled by `seed`).

    arms: a choice of its models.   schema: of the contexts, which are computed from the prompts; a FILE.npz brings its
    own. Raises DataError, and ConfigError for an unknown schema.
    """
    width(schema)
    if source == "paretobandit":
        table = _paretobandit(schema)
    elif source.endswith(".npz"):
        table = _vectors(Path(source))
    else:
        table = _folder(Path(source), seed, schema)
    return _choose(table, arms) if arms else table


def contexts(prompts: Sequence[str], schema: str) -> Context:
    """The contexts of prompts of which nothing but the text is known, (n, d)."""
    return np.stack([context(Request(prompt), schema) for prompt in prompts])


def _paretobandit(schema: str) -> OutcomeTable:
    try:
        folder = resources.files("pareto_bandit") / "data" / "examples"
    except ModuleNotFoundError:
        raise DataError("the package paretobandit must be installed: pip install 'pilotage[demo]'.") from None
    days = {}
    models: tuple[str, ...] = ()
    for name in ("val", "test_holdout"):
        # Not splitlines(): a prompt may hold characters that it takes for the end of a line.
        lines = (folder / f"{name}.jsonl").read_text(encoding="utf-8").split("\n")
        rows = [json.loads(line) for line in lines if line]
        models = models or tuple(rows[0]["arms"])
        quality = np.array([[row["arms"][model]["reward"] for model in models] for row in rows])
        cost = np.array([[row["arms"][model]["cost"] for model in models] for row in rows])
        prompts = tuple(row["prompt"] for row in rows)
        days[name] = Day(prompts, contexts(prompts, schema), quality, cost, prompts)
    return OutcomeTable(models, schema, days["val"], days["test_holdout"])


def _vectors(path: Path) -> OutcomeTable:
    try:
        with np.load(path, allow_pickle=False) as file:
            z = {name: file[name] for name in file.files}
        days = [
            Day(
                tuple(f"{part}-{i}" for i in range(len(z[f"{part}_x"]))),
                z[f"{part}_x"].astype(np.float32),
                z[f"{part}_r"].astype(np.float64),
                z[f"{part}_c"].astype(np.float64),
            )
            for part in ("val", "test")
        ]
    except (OSError, KeyError, ValueError) as error:
        raise DataError(f"{path} must be an .npz with val_x val_r val_c test_x test_r test_c, but: {error}.") from None
    k = days[0].quality.shape[1]
    models = tuple(map(str, z["arms"])) if "arms" in z else tuple(f"arm-{i}" for i in range(k))
    return OutcomeTable(models, f"vector-{days[0].contexts.shape[1]}", *days)


def _folder(path: Path, seed: int, schema: str) -> OutcomeTable:
    import pyarrow.parquet as pq  # noqa: PLC0415  (heavy, and only this source needs it)

    try:
        prompts = pq.read_table(path / "prompts.parquet", columns=["prompt_id", "prompt"]).to_pydict()
        outcomes = pq.read_table(
            path / "outcomes.parquet", columns=["prompt_id", "model", "quality", "cost_usd"]
        ).to_pydict()
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path} must hold prompts.parquet and outcomes.parquet, but: {error}.") from None
    models = tuple(sorted(set(outcomes["model"])))
    row = {id_: i for i, id_ in enumerate(prompts["prompt_id"])}
    column = {model: j for j, model in enumerate(models)}
    quality = np.full((len(row), len(models)), np.nan)
    cost = np.full_like(quality, np.nan)
    at = [row[id_] for id_ in outcomes["prompt_id"]], [column[model] for model in outcomes["model"]]
    quality[at], cost[at] = outcomes["quality"], outcomes["cost_usd"]
    if np.isnan(quality).any() or np.isnan(cost).any():
        raise DataError(f"{path} must hold an outcome for every prompt and model, but some are missing.")
    features = contexts(prompts["prompt"], schema)
    order = np.random.default_rng(seed).permutation(len(row))
    half = len(order) // 2
    days = [
        Day(
            *(tuple(prompts["prompt_id"][i] for i in part), features[part], quality[part], cost[part]),
            texts=tuple(prompts["prompt"][i] for i in part),
        )
        for part in (order[:half], order[half:])
    ]
    return OutcomeTable(models, schema, *days)


def _choose(table: OutcomeTable, arms: Sequence[str]) -> OutcomeTable:
    unknown = [arm for arm in arms if arm not in table.models]
    if unknown or len(arms) < 2:
        raise DataError(f"--arms must name at least two of {', '.join(table.models)}, but got {', '.join(arms)}.")
    chosen = [table.models.index(arm) for arm in arms]
    days = [replace(d, quality=d.quality[:, chosen], cost=d.cost[:, chosen]) for d in (table.first, table.second)]
    return OutcomeTable(tuple(arms), table.schema, *days)
