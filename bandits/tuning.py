"""The search over the fold: which parameters would have been worth most on the log (Optuna, seeded, resumable)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from bandits.evaluation import dr
from bandits.learners.doubly_robust import Parameters
from bandits.training import Prepared, Trained, train


@dataclass(frozen=True, slots=True)
class Tuned:
    """What the search found. Values are doubly robust estimates on rounds that the learner did not see."""

    parameters: Parameters
    before: float  # value of the default parameters
    best: float  # value of the best trial, optimistic: it was chosen for being high
    gain: float  # best - before, paired by round
    standard_error: float  # of the gain
    adopted: bool  # the gain exceeds one standard error, so `parameters` are the best trial's, else the default
    trials: int


def tune(
    prepared: Prepared,
    *,
    trials: int,
    seed: int,
    study: str,
    storage: Path | None = None,
    on_trial: Callable[[int], None] = lambda done: None,
) -> Tuned:
    """Search the parameters of the Doubly Robust learner for the highest value at the domain's budget.

    Every trial meets the budget by construction: its price of a dollar is solved for it. The default parameters are
    the first trial, and the best one replaces them only if its paired gain exceeds one standard error, because the
    best of many noisy values is high by luck.

    study: name of the Optuna study; storage: journal file that keeps it, resumed if it was cut short; None: memory.
    """
    import optuna  # noqa: PLC0415  (0.7 s: only the night pays it)
    from optuna.storages import JournalStorage  # noqa: PLC0415
    from optuna.storages.journal import JournalFileBackend  # noqa: PLC0415

    default = train(prepared, Parameters())
    q_hat = np.clip(default.scores.q_hat, 0.0, 1.0)  # one yardstick for all trials
    before = _value(prepared, default, q_hat)
    seen: dict[Parameters, np.ndarray[tuple[int], np.dtype[np.float64]]] = {default.parameters: before}

    def objective(trial: optuna.Trial) -> float:
        parameters = Parameters(
            shared=trial.suggest_float("shared", 10.0, 3_000.0, log=True),
            own=trial.suggest_float("own", 100.0, 30_000.0, log=True),
            correction=trial.suggest_float("correction", 1_000.0, 1_000_000.0, log=True),
            siblings=trial.suggest_float("siblings", 0.0, 1.0) if prepared.siblings is not None else 0.0,
        )
        if parameters not in seen:
            seen[parameters] = _value(prepared, train(prepared, parameters), q_hat)
        return float(seen[parameters].mean())

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    found = optuna.create_study(
        study_name=study,
        storage=JournalStorage(JournalFileBackend(str(storage))) if storage else None,
        sampler=optuna.samplers.TPESampler(seed=seed),
        direction="maximize",
        load_if_exists=True,
    )
    if not found.trials:
        found.enqueue_trial(asdict(default.parameters), skip_if_exists=True)
    done = sum(trial.state.is_finished() for trial in found.trials)
    for number in range(done, trials):
        found.optimize(objective, n_trials=1)
        on_trial(number + 1)
    best = Parameters(**found.best_params)
    if best not in seen:  # found before the study was cut short
        seen[best] = _value(prepared, train(prepared, best), q_hat)
    gain = seen[best] - before
    error = float(gain.std(ddof=1) / np.sqrt(len(gain)))
    adopted = float(gain.mean()) > error
    return Tuned(
        best if adopted else default.parameters,
        float(before.mean()),
        float(seen[best].mean()),
        float(gain.mean()),
        error,
        adopted,
        max(done, trials),
    )


def _value(
    prepared: Prepared, trained: Trained, q_hat: np.ndarray[tuple[int, int], np.dtype[np.float64]]
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return dr.scores(prepared.feedback, trained.action_probs, q_hat)
