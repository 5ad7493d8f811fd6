"""What the name of a model stands for: a domain whose policy draws, or one arm that is insisted on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from bandits.config import DomainConfig

AUTO, DOMAIN = "auto", "model_routing"


class Named(NamedTuple):
    """What a name says.   arm: None: the policy draws.   workspace: None where the name says none."""

    domain: str
    arm: str | None
    workspace: str | None = None


def named(model: str, domains: Mapping[str, DomainConfig]) -> Named | None:
    """auto, auto:DOMAIN, auto:DOMAIN@WORKSPACE, an arm's name or a model's; None for a model that nobody knows.

    Whether there is a domain or a workspace of the name is for the caller to see.
    """
    kind, _, rest = model.partition(":")
    if kind == AUTO:
        domain, at, workspace = rest.partition("@")
        return Named(domain or DOMAIN, None, workspace if at else None)
    for known in ("name", "model"):  # an arm's own name goes before what the provider calls its model
        for domain in sorted(domains, key=lambda one: one != DOMAIN):
            for arm in domains[domain].arms:
                if getattr(arm, known) == model:
                    return Named(domain, arm.name)
    return None
