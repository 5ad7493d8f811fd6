"""The audit chain against the snapshots that signed it."""

from __future__ import annotations

from bandits.home import Home
from bandits.record.audit import Audit, Head, verify
from bandits.snapshots.keys import trusted_keys
from bandits.snapshots.loading import list_versions
from bandits.types import Scope


def signed_heads(home: Home) -> dict[str, Head]:
    """The head of the chain that each snapshot signed, by "scope version"; those whose signature is good."""
    trusted, found = trusted_keys(home.root), {}
    for folder in sorted(home.snapshots.glob("*/*/*")):
        scope = Scope(*folder.relative_to(home.snapshots).parts)
        for one in list_versions(home.snapshots, scope, trusted=trusted, now=0.0):
            head = one.manifest.evidence.get("audit") if one.manifest else None
            if head is not None:
                found[f"{scope} {one.version}"] = Head(head["sequence"], head["link"])
    return found


def broken_links(home: Home) -> list[str]:
    """Faults of the chain and of what the snapshots say of it; none where there is no chain and nobody signed one."""
    signed = signed_heads(home)
    if not signed and not (home.root / "audit.db").exists():
        return []
    with Audit(home.audit_url) as audit:
        return verify(audit.rows(), signed)
