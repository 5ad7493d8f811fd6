"""Explain a decision, list policies, domains and money: the routes that only read."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query

from bandits.explaining.why import explain
from bandits.features import names
from bandits.ids import bare
from bandits.money.caps import NANO
from bandits.snapshots.keys import trusted_keys
from bandits.snapshots.loading import list_versions
from bandits.types import Scope
from service.bodies import BudgetQuery, ScopeQuery, SnapshotAnswer, StoryAnswer, TenantOnly
from service.call import Call, Here, errors
from service.standing_bodies import BudgetsAnswer, CapAnswer, DomainAnswer, PacedAnswer

router = APIRouter(tags=["decisions"])


@router.get(
    "/decisions/{decision_id}",
    summary="Explain a decision",
    response_model=StoryAnswer,
    responses=errors(401, 403, 404, 422, 429, 503),
)
def decision(
    decision_id: Annotated[str, Path(max_length=64)], here: Here, _: Annotated[TenantOnly, Query()]
) -> dict[str, Any]:
    """Why this arm: probabilities, estimates, what came back, and whether the policy gives the same numbers again."""
    parts, decision_id = here.parts, bare(decision_id)
    found = parts.record.decision(decision_id, here.tenant)
    parts.servers.scope(found.scope.tenant, found.scope.workspace, found.scope.domain)
    domain, trusted = parts.config.domains[found.scope.domain], trusted_keys(parts.home.root)
    outcomes = parts.record.outcomes(decision_id)
    story = explain(found, outcomes, domain, parts.home.snapshots, trusted, parts.clock(), parts.record)
    return story.as_dict()


@router.get("/snapshots", summary="List policies", responses=errors(401, 403, 404, 422, 429, 503))
def snapshots(query: Annotated[ScopeQuery, Query()], here: Here) -> list[SnapshotAnswer]:
    """The published policies of the key's tenant, newest last in each scope, and whether each still verifies."""
    parts, found = here.parts, []
    trusted = trusted_keys(parts.home.root)
    for scope in _scopes(here, query):
        shares = parts.servers.shares(scope)
        for one in list_versions(parts.home.snapshots, scope, trusted=trusted, now=parts.clock()):
            m = one.manifest
            found.append(
                SnapshotAnswer(
                    scope=str(scope),
                    version=one.version,
                    kind=m.kind if m else None,
                    position=m.position if m else None,
                    created=m.created if m else None,
                    expires=m.expires if m else None,
                    content=m.content if m else None,
                    fault=one.fault,
                    serving=one.version in shares,
                    share=shares.get(one.version, 0.0),
                )
            )
    return found


@router.get("/budgets", summary="Money", responses=errors(401, 403, 404, 422, 429, 503))
def budgets(query: Annotated[BudgetQuery, Query()], here: Here) -> BudgetsAnswer:
    """How the caps of the key's tenant stand, and what each scope has spent today of what it is paced to.

    With a user, that user's cap as well. A cap that has nothing left answers requests with 402 until it resets.
    """
    parts, now = here.parts, here.parts.clock()
    user = parts.ids.pseudonym(here.tenant, query.user or "")
    caps = [
        CapAnswer(
            cap=one.cap,
            limit_usd=one.limit / NANO,
            spent_usd=one.settled / NANO,
            held_usd=one.reserved / NANO,
            left_usd=one.left / NANO,
            resets=one.resets,
        )
        for one in parts.servers.standings(here.tenant, user, now)
    ]
    paced = []
    for scope in _scopes(here, query):
        router = parts.servers.get(scope).router
        pacer = router.pacer
        paced.append(
            PacedAnswer(
                scope=str(scope),
                budget_usd_per_request=router.domain.budget_usd_per_request,
                requests=pacer.requests,
                spent_usd=pacer.settled,
                promised_usd=pacer.promised,
                pressure=pacer.pressure,
            )
        )
    return BudgetsAnswer(time=now, caps=caps, scopes=paced)


@router.get("/domains", summary="Domains and arms", responses=errors(401, 403, 404, 422, 429, 503))
def domains(query: Annotated[ScopeQuery, Query()], here: Here) -> list[DomainAnswer]:
    """What is decided: each domain's arms with their prices, its features, floor, budget and reward, as configured."""
    parts = here.parts
    found: dict[str, list[str]] = {}
    for scope in _scopes(here, query):
        found.setdefault(scope.domain, []).append(scope.workspace)
    return [
        DomainAnswer(
            name=name,
            workspaces=workspaces,
            features=domain.features,
            feature_names=list(names(domain.features)),
            floor=domain.floor,
            budget_usd_per_request=domain.budget_usd_per_request,
            between_nights=domain.between_nights,
            arms=[arm.model_dump(mode="json", exclude_none=True) for arm in domain.arms],
            reward=domain.reward.model_dump(mode="json"),
        )
        for name, workspaces in found.items()
        for domain in [parts.config.domains[name]]
    ]


def _scopes(here: Call, query: ScopeQuery) -> list[Scope]:
    """The scopes of the key's tenant that the query is about. Raises UnknownScopeError."""
    servers = here.parts.servers
    if query.workspace is not None:
        servers.check_workspace(here.tenant, query.workspace)
    if query.domain is not None:
        servers.check_domain(query.domain)
    return [
        scope
        for scope in servers.scopes(here.tenant)
        if query.workspace in (None, scope.workspace) and query.domain in (None, scope.domain)
    ]
