"""Where searches are kept: a journal in the home, or the PostgreSQL server that has the record.

A study that was cut short, by kill -9 too, goes on where it stopped: its finished trials count, and what ran when it
died is retired. Several processes may search one study on PostgreSQL at once. `optuna-dashboard` opens both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bandits.errors import ConfigError
from bandits.settings.tuning import TuningConfig

if TYPE_CHECKING:
    import optuna

_HEARTBEAT_S = 30  # a trial on PostgreSQL that is silent for twice as long is taken for dead
_CHOSEN = "chosen"  # of a study: the point that it ended with, which the next one tries early


def open_study(
    name: str, place: Path | str | None, settings: TuningConfig, directions: Sequence[Literal["maximize", "minimize"]]
) -> tuple[optuna.Study, Mapping[str, Any] | None]:
    """The study, resumed or made; and the point that the latest other study of its family ended with, if any.

    name: FAMILY@the rest: studies of one family search the same.   place: a journal file, a PostgreSQL URL, or None:
    memory. Raises ConfigError where the storage cannot be opened, or the sampler lacks its package.
    """
    import optuna  # noqa: PLC0415  (0.7 s: only a search pays it)

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler_of(settings, 0)
    try:
        storage = _storage(place)
        family, chosen = name.partition("@")[0], None
        for one in optuna.get_all_study_summaries(storage, include_best_trial=False) if storage else []:
            if one.study_name.partition("@")[0] == family and one.study_name != name:
                chosen = one.user_attrs.get(_CHOSEN, chosen)
        study = optuna.create_study(study_name=name, storage=storage, directions=directions, load_if_exists=True)
        _retire(study, place)
    except (OSError, ValueError) as error:
        raise ConfigError(f"the study {name!r} must be readable in {_shown(place)}, but: {error}") from error
    return study, chosen


def finish(study: optuna.Study, chosen: Mapping[str, Any]) -> None:
    """Keep the point that a search ended with: the next search of its family begins with it."""
    study.set_user_attr(_CHOSEN, dict(chosen))


def sampler_of(settings: TuningConfig, seed: int) -> optuna.samplers.BaseSampler:
    """The sampler of one trial. It depends on the seed and on the trials so far alone, so that a resumed search is
    the one that was cut short. Raises ConfigError for a sampler whose package is missing."""
    from optuna import samplers  # noqa: PLC0415

    if settings.sampler == "tpe":
        return samplers.TPESampler(seed=seed)
    if settings.sampler == "random":
        return samplers.RandomSampler(seed=seed)
    try:
        import torch  # type: ignore[import-not-found,unused-ignore]  # noqa: F401, PLC0415
    except ImportError:
        raise ConfigError(
            "tuning.sampler = 'gp' needs torch, which is not installed; install the extra gp, or leave the setting out."
        ) from None
    return samplers.GPSampler(seed=seed)


def _storage(place: Path | str | None) -> optuna.storages.BaseStorage | None:
    from optuna import storages  # noqa: PLC0415
    from optuna.storages.journal import JournalFileBackend  # noqa: PLC0415

    if place is None:
        return None
    if isinstance(place, Path):
        place.parent.mkdir(parents=True, exist_ok=True)
        return storages.JournalStorage(JournalFileBackend(str(place)))
    return storages.RDBStorage(place, heartbeat_interval=_HEARTBEAT_S, grace_period=2 * _HEARTBEAT_S)


def _retire(study: optuna.Study, place: Path | str | None) -> None:
    """End trials that nobody works on any more: a journal has one searcher at a time, a server knows by heartbeat."""
    from optuna.storages import fail_stale_trials  # noqa: PLC0415
    from optuna.trial import TrialState  # noqa: PLC0415

    if isinstance(place, str):
        fail_stale_trials(study)
        return
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        with suppress(RuntimeError):  # it ended meanwhile
            study.tell(trial.number, state=TrialState.FAIL)


def _shown(place: Path | str | None) -> str:
    return "the record's server" if isinstance(place, str) else str(place)  # a URL may have a password
