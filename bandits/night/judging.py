"""A trial: one candidate, fixed before the rounds that judge it, so that the gate errs as seldom as it says.

The candidate of a night is the best of many on the log that trained and tuned it: judged by the same rounds it looks
better than it is, even when each was scored by a model that left it out. So a candidate that is to replace a learned
policy is *registered*, a signed snapshot that serves nobody, and only rounds that were logged later judge it. By then
everything is fixed that the verdict rests on: both policies, the reward model (means of rewards before each round),
the bound, and the horizon of the bets. Its scores are then fair whatever the candidate was chosen by, and however the
log was drawn. A trial may be looked at every night at no cost; it ends by a pass, a fail, or when its snapshot expires,
and the k-th since the last promotion may spend alpha 6 / (pi^2 k^2) over all of its looks, in all alpha.

    register(...)                               tonight's candidate, when no trial stands
    standing(...) -> Trial | None               some later night
    judge(feedback, trial, incumbent, alpha)    pass: publish trial.policy; fail: register another; hold: wait

Rounds must be settled: an outcome that comes after a look puts its round where the bets have been already. Judge rounds
that are older than the domain's reward window.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bandits.config import DomainConfig
from bandits.evaluation import dr
from bandits.evaluation.sequences import check_order
from bandits.evaluation.weights import support
from bandits.home import Home
from bandits.learners.frozen import thaw
from bandits.night.gates import GateVerdict, gate
from bandits.policy import Policy, served
from bandits.snapshots.keys import SigningKey, trusted_keys
from bandits.snapshots.loading import Listed, list_versions, load
from bandits.snapshots.manifest import Manifest, content_hash
from bandits.snapshots.publishing import publish
from bandits.types import LoggedFeedback, Matrix, Scope

PRIOR = 10.0  # rounds; a mean of one or two would add more noise than it takes away


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """A candidate and how it is judged. All of it was fixed at `fixed`, UTC seconds; only later rounds count."""

    policy: Policy
    number: int  # 1, 2, ... since the incumbent was promoted
    fixed: float
    horizon: int  # rounds at which the bets are best
    least: float  # probability that no allowed arm falls below: the floor then, shared among all arms
    version: str  # of its snapshot among the trials


def judge(
    feedback: LoggedFeedback, trial: Trial, incumbent: Policy, alpha: float, *, ess: float | None = None
) -> GateVerdict:
    """Is the trial's candidate shown to be better than the incumbent, by the settled rounds since it was fixed?

    feedback: in order of time.     alpha: error rate over all trials since the incumbent was promoted.
    ess:      effective rounds, if they are to be another figure than the lesser Support.evidence of the two.
    Raises ShapeError and EvidenceError, the latter also for a propensity below the floor that was promised.
    """
    rounds = feedback.where(feedback.times > trial.fixed)
    check_order(rounds)
    candidate, serving = would_draw(trial.policy, rounds), would_draw(incumbent, rounds)
    q_hat = means_before(rounds)
    return gate(
        dr.scores(rounds, candidate, q_hat),
        dr.scores(rounds, serving, q_hat),
        alpha=alpha,
        night=trial.number,
        bound=1.0 / trial.least,  # see dr.difference_bound
        ess=min(support(rounds, one).evidence for one in (candidate, serving)) if ess is None else ess,
        horizon=trial.horizon,
    )


def register(
    home: Home,
    scope: Scope,
    policy: Policy,
    domain: DomainConfig,
    *,
    against: str,
    number: int,
    horizon: int,
    position: int,
    now: float,
    expires: float,
    key: SigningKey,
) -> Manifest:
    """Fix a candidate: only rounds after `now` will judge it, until `expires`; both UTC seconds.

    against: version of the incumbent.   horizon: rounds foreseen by then.   position: of the record it learned from.
    number:  the night since the incumbent's promotion. The trial gets the number after the last one against this
             incumbent, and this only if there was none: a lost folder cannot refill the error rate.
    Raises SnapshotError.
    """
    before = [one for one in _listed(home, scope, now) if one.manifest and one.manifest.evidence["against"] == against]
    last = before[-1].manifest if before else None
    terms = {
        "against": against,
        "number": last.evidence["number"] + 1 if last else number,
        "horizon": horizon,
        "least": domain.floor / len(domain.arms),
    }
    return publish(
        home.trials,
        scope,
        policy.freeze(),
        position=position,
        parent=None,
        evidence=terms,
        created=now,
        expires=expires,
        key=key,
    )


def standing(home: Home, scope: Scope, domain: DomainConfig, against: str, now: float) -> Trial | None:
    """The trial against this incumbent that has not expired; None also when arms, features or floor have changed."""
    listed = _listed(home, scope, now)
    if not listed or listed[-1].fault or (found := listed[-1].manifest) is None:
        return None
    terms = found.evidence
    same = (found.arms, found.schema, terms["against"]) == (domain.arm_names, domain.features, against)
    if not same or domain.floor / len(domain.arms) < terms["least"]:
        return None
    snapshot = load(home.trials, scope, found.version, trusted=trusted_keys(home.root), now=now)
    policy = thaw(snapshot.frozen)
    return Trial(policy, terms["number"], found.created, terms["horizon"], terms["least"], found.version)


def was_published(home: Home, scope: Scope, trial: Trial, now: float) -> bool:
    """Whether a snapshot of the scope has the same content."""
    content = content_hash(trial.policy.freeze().arrays)
    listed = list_versions(home.snapshots, scope, trusted=trusted_keys(home.root), now=now)
    return any(one.manifest is not None and one.manifest.content == content for one in listed)


def would_draw(policy: Policy, rounds: LoggedFeedback) -> Matrix:
    """Probabilities, (n, K), that the policy would have drawn from, as it would be served: see policy.served."""
    if not len(rounds):
        return np.zeros((0, rounds.k))
    return served(policy, rounds.contexts, rounds.probabilities > 0.0)


def means_before(rounds: LoggedFeedback) -> Matrix:
    """Mean reward of each arm before each round, (n, K): a model that never looks ahead.

    Begun with PRIOR rounds of the mean over all arms before, and that with one of 1/2.
    """
    n, rows = len(rounds), np.arange(1, len(rounds) + 1)
    drawn = np.zeros((n + 1, rounds.k))
    won = np.zeros_like(drawn)
    drawn[rows, rounds.actions], won[rows, rounds.actions] = 1.0, rounds.rewards
    drawn, won = drawn.cumsum(axis=0)[:-1], won.cumsum(axis=0)[:-1]
    of_all = (0.5 + won.sum(axis=1)) / np.arange(1, n + 1)
    means: Matrix = (PRIOR * of_all[:, None] + won) / (PRIOR + drawn)
    return means


def _listed(home: Home, scope: Scope, now: float) -> list[Listed]:
    return list_versions(home.trials, scope, trusted=trusted_keys(home.root), now=now)
