"""The search over the fold: which settings would have been worth most on the log (Optuna, seeded, resumable).

A part of the log, picked by hash of the decision, is held out. The search sees the rest alone, where each trial is
scored by models that never saw the round (cross-fitting). Of the feasible trials the one of highest reward is chosen
(of equal ones the cheapest), trained on the rest, and judged once on what was held out: it serves only if it is shown
there to be better than the defaults, and within every constraint. The best of many is high by luck; the held-out rounds
did not choose it. By how much it looked better than it is there: the overfit gap.

Every trial meets the domain's budget by construction (its price of a dollar is solved for it). None is pruned for doing
badly: all that the point does not touch is folded once, and what is left of a trial is a fraction of a second.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path

import numpy as np

from bandits.errors import ConfigError, NotEnoughDataError
from bandits.settings.tuning import PENALTIES, TuningConfig
from bandits.training.training import Prepared, within
from bandits.tuning.points import Point, Tuned, defaults, point_of
from bandits.tuning.search import Search, under
from bandits.tuning.studies import finish, open_study
from bandits.types import LoggedFeedback, Mask, Vector

__all__ = ["Point", "Tuned", "applied", "held_out", "tune"]


def tune(
    prepared: Prepared,
    *,
    trials: int,
    seed: int,
    study: str,
    storage: Path | str | None = None,
    settings: TuningConfig | None = None,
    latencies: Vector | None = None,
    on_trial: Callable[[int], None] = lambda done: None,
) -> Tuned:
    """Search the settings of the Doubly Robust learner; see above for what is chosen and what it must prove.

    study: name of the Optuna study, FAMILY@log.   storage: journal file or PostgreSQL URL that keeps it, resumed if it
    was cut short; None: memory.   settings: left out, the learner's penalties alone vary.
    latencies: (K,) seconds by arm, where an objective or a constraint is about them.
    Raises ConfigError for a latency that nobody measured, and what studies.open_study raises.
    """
    settings = settings or TuningConfig(space=PENALTIES)
    wanted = {*settings.objectives, *settings.constraints, "reward", "cost"}
    if "latency" in wanted and latencies is None:
        raise ConfigError(
            "tuning by latency needs outcomes with latency_s of every arm, but the log has not; report them, or take "
            "latency out of tuning.objectives and tuning.constraints."
        )
    rows = held_out(prepared.feedback, settings.held_out)
    try:
        seen, unseen = within(prepared, ~rows, prepared.domain), prepared.feedback.where(rows)
        if len(unseen) < 2:
            raise NotEnoughDataError("two rounds must be held out.")
    except NotEnoughDataError as error:
        return defaults(f"The log is too small to hold a part of it out: {error}")
    search = Search(seen, unseen, settings, latencies)
    found, last = open_study(
        study, storage, settings, ["maximize" if m == "reward" else "minimize" for m in settings.objectives]
    )
    if not found.trials:
        search.enqueue(found, Point())
        if last is not None:
            search.enqueue(found, point_of(last))
    stopped = search.run(found, trials, seed, on_trial)
    tuned = search.conclude(found, stopped)
    finish(found, asdict(search.chosen(found) or Point()))
    return tuned


def applied(prepared: Prepared, tuned: Tuned) -> Prepared:
    """The log under the settings that the search chose."""
    return under(prepared, tuned.point)


def held_out(feedback: LoggedFeedback, share: float) -> Mask:
    """Rounds, (n,), that the search must not see: by hash of the id, so that a round stays where it is as logs grow."""
    digests = b"".join([blake2b(id_.encode(), digest_size=8, person=b"held-out").digest() for id_ in feedback.ids])
    return np.frombuffer(digests, ">u8") < share * 2.0**64
