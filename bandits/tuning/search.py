"""How points fare on the part of a log that a search sees, and on the part that it does not (see tuning.py)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import ndtri

from bandits.errors import NotEnoughDataError
from bandits.evaluation import dr
from bandits.evaluation.moments import moments
from bandits.learners.doubly_robust import Parameters
from bandits.settings.tuning import PENALTIES, Dimension, Metric, TuningConfig
from bandits.training.training import Prepared, Trained, train, within
from bandits.tuning.points import Point, Tuned, defaults
from bandits.tuning.studies import sampler_of
from bandits.types import LoggedFeedback, Matrix, Vector

if TYPE_CHECKING:
    import optuna

SLACK = 0.1  # of the budget: a point may cost so much more than the defaults, whose price is solved for the budget too
_PENALTY: Mapping[Dimension, tuple[float, float]] = {
    "shared": (10.0, 3_000.0),
    "own": (100.0, 30_000.0),
    "correction": (1_000.0, 1_000_000.0),
}
_FLOOR = (0.2, 10.0)  # a floor rises to this at most, and to so many times the domain's
_SPEND = 0.5  # least share of the budget that a point aims at
_FADING_DAYS = 2.0  # a shorter log has no old days
_TOP = 8.0  # spans of the log: a half-life beyond them is none
_SIGN: Mapping[Metric, float] = {"reward": 1.0, "cost": -1.0, "latency": -1.0}
Scored = Mapping[Metric, Vector]  # (n,) scores of rounds


@dataclass(frozen=True, slots=True, eq=False)
class Search:
    """The two parts of the log, and how points fare on them."""

    seen: Prepared
    unseen: LoggedFeedback
    settings: TuningConfig
    latencies: Vector | None
    cache: dict[Any, Any] = field(default_factory=dict)  # scores of points, which are dear

    def run(self, study: optuna.Study, trials: int, seed: int, on_trial: Callable[[int], None]) -> str:
        """Try points until there are enough, or nothing better comes; why it stopped."""
        while (done := _finished(study)) < trials:
            if (idle := self._idle(study)) >= self.settings.patience:
                return f"{idle} trials in a row found nothing better"
            study.sampler = sampler_of(self.settings, seed + len(study.trials))
            study.optimize(self._objective, n_trials=1)
            on_trial(done + 1)
        return f"all {trials} trials were made"

    def conclude(self, study: optuna.Study, stopped: str) -> Tuned:
        """Judge the chosen point, once, by what was held out."""
        default = self._judged(Point())
        before = float(default["reward"].mean())
        convergence = tuple(self._so_far(study))
        front = tuple(self._front(study))
        point = self.chosen(study)
        shared: dict[str, Any] = {
            "trials": _finished(study),
            "stopped": stopped,
            "convergence": convergence,
            "front": front,
        }
        if point is None or point == Point():
            reason = "no trial was better than the defaults" if point else "no trial kept the constraints"
            return replace(defaults(f"The defaults stay: {reason}."), before=before, best=before, **shared)
        judged = self._judged(point)
        gain = moments(judged["reward"] - default["reward"])
        refused = self._refused(judged, default)
        adopted = not refused and gain.mean - gain.standard_error > 0.0  # as much proof as the guard asks for
        said = f"gains {gain.mean:+.4f} ± {gain.standard_error:.4f} on {len(self.unseen)} held-out rounds"
        if refused:
            reason = f"The defaults stay: the chosen point {said}, but {' and '.join(refused)}."
        elif adopted:
            reason = f"The chosen point serves: it {said}."
        else:
            reason = f"The defaults stay: the chosen point {said}, which does not prove it better."
        used = point if adopted else Point()
        seen_gain = float((self._scored(point)["reward"] - self._scored(Point())["reward"]).mean())
        return Tuned(
            used.parameters,
            used.floor,
            used.half_life_days,
            used.spend,
            before=before,
            best=float(judged["reward"].mean()),
            gain=gain.mean,
            standard_error=gain.standard_error,
            adopted=adopted,
            reason=reason,
            overfit_gap=seen_gain - gain.mean,
            **shared,
        )

    def chosen(self, study: optuna.Study) -> Point | None:
        """The point of highest reward among the feasible ones, of equal ones the cheapest; None where none is."""
        feasible = [trial for trial in _complete(study) if _feasible(trial)]
        best = max(feasible, key=lambda t: (t.user_attrs["reward"], -t.user_attrs["cost"]), default=None)
        return None if best is None else self._point(best)

    def enqueue(self, study: optuna.Study, point: Point) -> None:
        """Try this point before the sampler has its say; what the space does not hold is left out."""
        ranges, values = self._ranges(), {**asdict(point.parameters), **asdict(point)}
        values["floor"] = values["floor"] or self.seen.domain.floor
        values["half_life_days"] = values["half_life_days"] or self.seen.domain.half_life_days or np.inf
        clipped = {str(name): float(np.clip(values[name], *ends[:2])) for name, ends in ranges.items()}
        study.enqueue_trial(clipped, skip_if_exists=True)

    def _objective(self, trial: optuna.Trial) -> tuple[float, ...]:
        for dimension, (low, high, log) in self._ranges().items():
            trial.suggest_float(dimension, low, high, log=log)
        default = self._scored(Point())
        try:
            scored = self._scored(self._point(trial))
        except NotEnoughDataError:
            import optuna  # noqa: PLC0415

            raise optuna.TrialPruned from None  # nothing can be learned there
        for name, excess in self._excess(scored, default).items():
            trial.set_constraint(name, excess)
        means = {str(metric): float(values.mean()) for metric, values in scored.items()}
        for metric, mean in means.items():
            trial.set_user_attr(metric, mean)
        return tuple(means[metric] for metric in self.settings.objectives)

    def _ranges(self) -> dict[Dimension, tuple[float, float, bool]]:
        """Low, high, and whether the scale is logarithmic, of each dimension that this log has."""
        domain = self.seen.domain
        span = float(np.ptp(self.seen.feedback.times)) / 86_400.0
        found: dict[Dimension, tuple[float, float, bool]] = {name: (*ends, True) for name, ends in _PENALTY.items()}
        if self.seen.siblings is not None:
            found["siblings"] = (0.0, 1.0, False)
        if domain.floor < (top := min(_FLOOR[0], _FLOOR[1] * domain.floor)):
            found["floor"] = (domain.floor, top, True)
        if span >= _FADING_DAYS:
            found["half_life_days"] = (1.0, _TOP * span, True)
        found["spend"] = (_SPEND, 1.0, False)
        return {name: ends for name, ends in found.items() if name in self.settings.space}

    def _point(self, trial: optuna.Trial | optuna.trial.FrozenTrial) -> Point:
        """The point of a trial: a half-life at the end of its range is none, and what the domain has itself is that."""
        values, ranges, domain = trial.params, self._ranges(), self.seen.domain
        own = {str(name): values[name] for name in PENALTIES if name in values}
        floor, half_life = values.get("floor"), values.get("half_life_days")
        if floor is not None and floor <= ranges["floor"][0]:
            floor = None
        if half_life is not None and (half_life >= ranges["half_life_days"][1] or half_life == domain.half_life_days):
            half_life = None
        return Point(Parameters(**own), floor, half_life, values.get("spend", 1.0))

    def _trained(self, point: Point) -> tuple[Prepared, Trained]:
        prepared = under(self.seen, point)
        return prepared, train(prepared, point.parameters)

    def _scored(self, point: Point) -> Scored:
        """Scores of the rounds that the search sees, cross-fitted; one yardstick for all points."""
        if "yardstick" not in self.cache:
            default = self._trained(Point())[1]
            self.cache["yardstick"] = np.clip(default.scores.q_hat, 0.0, 1.0), default.scores.cost_hat
        if point not in self.cache:
            probs = self._trained(point)[1].action_probs
            self.cache[point] = self._scores(self.seen.feedback, probs, *self.cache["yardstick"])
        found: Scored = self.cache[point]
        return found

    def _judged(self, point: Point) -> Scored:
        """Scores of the held-out rounds, by a policy that was trained on the others."""
        prepared, trained = self._trained(point)
        policy, allowed = trained.policy, np.broadcast_to(prepared.allowed, (len(self.unseen), self.unseen.k))
        if "held out" not in self.cache:
            q_hat, cost_hat = self._trained(Point())[1].policy.scores(self.unseen.contexts)
            self.cache["held out"] = np.clip(q_hat, 0.0, 1.0), cost_hat
        probs = policy.probabilities(self.unseen.contexts, allowed)
        return self._scores(self.unseen, probs, *self.cache["held out"])

    def _scores(self, feedback: LoggedFeedback, probs: Matrix, q_hat: Matrix, cost_hat: Matrix) -> Scored:
        """reward: doubly robust.   cost: by the price model, as the guard reckons.   latency: by the arms' means."""
        found: dict[Metric, Vector] = {
            "reward": dr.scores(feedback, probs, q_hat),
            "cost": (probs * cost_hat).sum(axis=1),
        }
        if self.latencies is not None:
            found["latency"] = probs @ self.latencies
        return found

    @property
    def _z(self) -> float:
        return float(ndtri(1.0 - self.settings.alpha))

    def _excess(self, scored: Scored, default: Scored) -> dict[str, float]:
        """By how much each constraint may be broken, by a confidence bound; feasible is <= 0."""
        dearer = moments(scored["cost"] - default["cost"])
        slack = SLACK * self.seen.domain.budget_usd_per_request
        found = {"budget": dearer.mean + self._z * dearer.standard_error - slack}
        for metric, limit in self.settings.constraints.items():
            harm = moments(-_SIGN[metric] * scored[metric])
            found[metric] = harm.mean + self._z * harm.standard_error + _SIGN[metric] * limit
        return found

    def _refused(self, judged: Scored, default: Scored) -> list[str]:
        return [
            f"it may break {name} by {excess:.3g}"
            for name, excess in self._excess(judged, default).items()
            if excess > 0.0
        ]

    def _so_far(self, study: optuna.Study) -> list[float]:
        best, found = -np.inf, []
        for trial in _complete(study):
            best = max(best, trial.user_attrs["reward"] if _feasible(trial) else -np.inf)
            found.append(best)
        return [value for value in found if np.isfinite(value)]

    def _idle(self, study: optuna.Study) -> int:
        """Trials since the best one; the sampler has to have had its say first."""
        found = self._so_far(study)
        return len(found) - 1 - found.index(found[-1]) if found else 0

    def _front(self, study: optuna.Study) -> list[dict[str, Any]]:
        feasible = [trial for trial in _complete(study) if _feasible(trial)]
        points = [(trial.user_attrs["reward"], -trial.user_attrs["cost"]) for trial in feasible]
        found = []
        for trial, (reward, thrift) in zip(feasible, points, strict=True):
            if not any(r >= reward and t >= thrift and (r, t) != (reward, thrift) for r, t in points):
                settings = {name: float(f"{value:.4g}") for name, value in trial.params.items()}
                found.append({"trial": trial.number, **trial.user_attrs, **settings})
        return sorted(found, key=lambda one: one["cost"])


def under(prepared: Prepared, point: Point) -> Prepared:
    """The log under a point's settings. What may be played stays what the domain affords: so the router sees it, and
    a price of a dollar that was solved without an arm would be untrue with it."""
    domain = point.domain(prepared.domain)
    if domain is prepared.domain:
        return prepared
    whole = np.ones(len(prepared.feedback), np.bool_)
    return replace(within(prepared, whole, domain), allowed=prepared.allowed)


def _finished(study: optuna.Study) -> int:
    """Trials that were made; one that was retired unfinished was not."""
    return sum(trial.state.name in ("COMPLETE", "PRUNED") for trial in study.trials)


def _complete(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    return [trial for trial in study.trials if trial.state.name == "COMPLETE"]


def _feasible(trial: optuna.trial.FrozenTrial) -> bool:
    return all(value <= 0.0 for value in trial.constraints.values())
