"""The whole night on null data: how often does a year promote what is worth no more than what serves?

Every arm is worth the same in every context (a chance of 1/2), so every policy is: whatever passes is a false
promotion. A year begins with a policy trained on 500 rounds of exploration; then each day it draws 100
rounds, with its floor, and each night learns and judges with the product's own code. By three ways of judging:

`trial`: as night/judging.py does. The candidate is trained, tuned, chosen by the guard and *registered*; later rounds
judge it, every night until it passes, fails or expires after a fortnight, and then another one is registered.
`cross_fitted`: every candidate is judged at once, by the rounds that trained it, each scored by models that left it
out; each night spends its share of alpha. `picked`, the control: the best of 300 random linear policies, judged at once
by the rounds that it was picked by; a candidate so chosen must often pass, or the measuring is blind.
`picked_trial`: the very same candidates as a trial.

None of them is refused for too few effective rounds, which could only make a pass rarer; `refused` is the share of
the looks of `trial` that the gate, with its support, would have held for that reason.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bandits.config import ArmConfig, DomainConfig
from bandits.evaluation import dr
from bandits.evaluation.weights import ENOUGH, support
from bandits.learners.baselines import ContextFree
from bandits.night import guard, judging
from bandits.night.gates import gate
from bandits.night.guard import Choice
from bandits.policy import Policy, with_floor
from bandits.training import training
from bandits.training.training import Trained
from bandits.tuning.tuning import tune
from bandits.types import Context, LoggedFeedback, Mask, Matrix

ALPHA, NIGHTS = 0.05, 365
ARMS, FEATURES, FLOOR = 3, 20, 0.3
FIRST, LEARNED = 500, 1000  # rounds of exploration; rounds that a night learns from, the newest
FORTNIGHT = 14
DAY = 86_400.0
DOMAIN = DomainConfig(
    arms=tuple(ArmConfig(name=f"arm-{arm}", model=f"arm-{arm}", usd_per_request=1e-3) for arm in range(ARMS)),
    features=f"vector-{FEATURES}",
    budget_usd_per_request=1.0,
    floor=FLOOR,
)
WAYS = ("trial", "cross_fitted", "picked", "picked_trial")
PICKED = 300


def null_nights(years: int, nights: int, rounds: int, seed: Sequence[int]) -> dict[str, Any]:
    """The row of whole nights: share of years with a false promotion, by the way of judging."""
    false = dict.fromkeys(WAYS, 0)
    looks = refused = trials = 0
    for year in range(years):
        one = Year(nights, rounds, np.random.default_rng([*seed, year]))
        one.run()
        for way in WAYS:
            false[way] += one.passed[way]
        looks, refused, trials = looks + one.looks, refused + one.refused, trials + one.trials
        print(f"whole nights: {year + 1} years, {false}", file=sys.stderr)
    return {
        "measured": "null years, whole nights",
        "years": years,
        "nights": nights,
        "rounds": rounds,
        "trials": trials / years,
        "refused": refused / max(looks, 1),
        **{way: count / years for way, count in false.items()},
    }


@dataclass(frozen=True, slots=True, eq=False)
class Guess(ContextFree):
    """A linear policy that nobody learned.   weights: (K, d)."""

    weights: Matrix

    def probabilities(self, contexts: Context, allowed: Mask, pressure: float = 1.0) -> Matrix:
        """See Policy."""
        return with_floor(np.eye(ARMS)[(contexts @ self.weights.T).argmax(axis=1)], allowed, self.floor)


class Year:
    """One scope for a year; `passed` says by which way something was ever promoted."""

    def __init__(self, nights: int, rounds: int, rng: np.random.Generator) -> None:
        self.nights, self.rounds, self.rng = nights, rounds, rng
        self.passed = dict.fromkeys(WAYS, False)
        self.looks = self.refused = self.trials = 0
        uniform = np.full((FIRST, ARMS), 1.0 / ARMS)
        self.log = [self._drawn(0, self._contexts(FIRST), uniform)]
        self.incumbent: Policy = self._learn(self.log[0])[1].policy

    def run(self) -> None:
        """Day, night, day, night; a year in which a candidate passed goes on, with the same policy serving."""
        standing: dict[str, judging.Trial] = {}
        since: list[LoggedFeedback] = []  # days since the trials were fixed
        for night in range(1, self.nights + 1):
            contexts = self._contexts(self.rounds)
            allowed = np.ones((self.rounds, ARMS), dtype=bool)
            self.log.append(self._drawn(night, contexts, self.incumbent.probabilities(contexts, allowed)))
            since.append(self.log[-1])
            outcomes = [self._look(way, trial, joined(since)) for way, trial in standing.items()]
            if outcomes[:1] == ["hold"] and len(since) < FORTNIGHT:
                continue
            newest = joined(self.log[-math.ceil(LEARNED / self.rounds) :])
            chosen, trained, q_hat = self._learn(newest)
            picked = self._pick(newest)
            crossed = trained.action_probs if chosen is trained.policy else judging.would_draw(chosen, newest)
            self._at_once("cross_fitted", newest, crossed, q_hat, night)
            self._at_once("picked", newest, judging.would_draw(picked, newest), np.full_like(q_hat, 0.5), 1)
            self.trials += 1
            terms = (self.trials, (night + 1) * DAY - 1.0, FORTNIGHT * self.rounds, FLOOR / ARMS, "000001")
            standing = {"trial": judging.Trial(chosen, *terms), "picked_trial": judging.Trial(picked, *terms)}
            since = []

    def _look(self, way: str, trial: judging.Trial, log: LoggedFeedback) -> str:
        probs = [judging.would_draw(policy, log) for policy in (trial.policy, self.incumbent)]
        self.looks += 1
        self.refused += min(support(log, one).evidence for one in probs) < ENOUGH
        found = judging.judge(log, trial, self.incumbent, ALPHA, ess=math.inf)
        self.passed[way] |= found.outcome == "pass"
        return found.outcome

    def _at_once(self, way: str, log: LoggedFeedback, probs: Matrix, q_hat: Matrix, night: int) -> None:
        """Judge a candidate by the rounds that made it."""
        serving = judging.would_draw(self.incumbent, log)
        scores = (dr.scores(log, one, q_hat) for one in (probs, serving))
        bound = dr.difference_bound(log, probs, serving)
        found = gate(*scores, alpha=ALPHA, night=night, bound=bound, ess=math.inf)
        self.passed[way] |= found.outcome == "pass"

    def _pick(self, log: LoggedFeedback) -> Policy:
        """The best, by the log itself, of many guesses."""
        weights = self.rng.normal(size=(PICKED, ARMS, FEATURES))
        played = np.einsum("nd,mad->mna", log.contexts, weights, optimize=True).argmax(axis=2)
        gains = ((played == log.actions) * ((log.rewards - 0.5) / log.propensities)).mean(axis=1)
        ones = np.ones(ARMS)
        return Guess("fixed", log.arms, log.schema, ones, ones, 1.0, FLOOR, weights[gains.argmax()])

    def _learn(self, log: LoggedFeedback) -> tuple[Policy, Trained, Matrix]:
        """Train, tune and guard as a night does: the chosen policy, the candidate, its cross-fitted q_hat."""
        prepared = training.prepare(log, DOMAIN, 200)
        trained = training.train(prepared, tune(prepared, trials=2, seed=0, study="null").parameters)
        q_hat = np.clip(trained.scores.q_hat, 0.0, 1.0)
        each = [np.broadcast_to(arm, q_hat.shape) for arm in np.eye(ARMS)]
        values = np.array([dr.scores(log, arm, q_hat).mean() for arm in each])
        terms = (log.arms, log.schema, values, prepared.prices, 1.0, FLOOR)
        simple = {name: ContextFree(name, *terms) for name in ("mix", "fixed")}
        policies: dict[Choice, Policy] = {"candidate": trained.policy, **simple}  # type: ignore[dict-item]
        allowed = np.ones_like(q_hat, dtype=bool)
        free = (simple[name].probabilities(log.contexts, allowed) for name in ("mix", "fixed"))
        scores = [dr.scores(log, probs, q_hat) for probs in (trained.action_probs, *free)]
        costs: dict[Choice, float] = dict.fromkeys(("candidate", "mix", "fixed"), 1e-3)
        return policies[guard.choose(*scores, costs=costs, budget=1.0).chosen], trained, q_hat

    def _contexts(self, n: int) -> Context:
        return self.rng.normal(size=(n, FEATURES)).astype(np.float32)

    def _drawn(self, day: int, contexts: Context, probabilities: Matrix) -> LoggedFeedback:
        """A day's log, drawn from these probabilities; every reward is the toss of a coin."""
        n = len(contexts)
        actions = (self.rng.random((n, 1)) >= probabilities.cumsum(axis=1)[:, :-1]).sum(axis=1)
        return LoggedFeedback(
            arms=DOMAIN.arm_names,
            schema=DOMAIN.features,
            ids=tuple(f"{day}-{i}" for i in range(n)),
            times=np.linspace(day * DAY, (day + 1) * DAY, n, endpoint=False, dtype=np.float64),
            contexts=contexts,
            actions=actions,
            propensities=probabilities[np.arange(n), actions],
            probabilities=probabilities,
            rewards=(self.rng.random(n) < 0.5).astype(np.float64),
            costs=np.full(n, 1e-3),
        )


def joined(days: Sequence[LoggedFeedback]) -> LoggedFeedback:
    """The logs of some days as one."""
    columns = ("times", "contexts", "actions", "propensities", "probabilities", "rewards", "costs")
    whole: dict[str, Any] = {name: np.concatenate([getattr(day, name) for day in days]) for name in columns}
    return replace(days[0], ids=tuple(one for day in days for one in day.ids), **whole)
