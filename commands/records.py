"""The record: why a decision was made, whether it replays, and how it goes in and out."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from bandits.config import home, load_config
from bandits.errors import SnapshotError
from bandits.types import Scope
from commands.table import Json, ScopeText, app, audit, place, scopes, show

if TYPE_CHECKING:
    from bandits.explaining.replay import Policies

Form = Literal["dsjson", "parquet"]


@app.command()
def why(
    decision_id: Annotated[str, typer.Argument(help="Id of the decision.")],
    tenant: Annotated[str, typer.Option(help="Whose decision it is.")] = "demo",
    as_json: Json = False,
) -> None:
    """Tell the story of one decision: arms, probabilities, estimates, what came back, and whether it replays."""
    from bandits.explaining.why import explain
    from bandits.ids import bare
    from bandits.snapshots.keys import trusted_keys

    here, decision_id = place(), bare(decision_id)
    with here.open_record() as record:
        decision = record.decision(decision_id, tenant)
        outcomes = record.outcomes(decision_id)
        domain = load_config().domains[decision.scope.domain]
        story = explain(decision, outcomes, domain, here.snapshots, trusted_keys(here.root), time.time(), record)
    show(story.as_dict() if as_json else story.render())


@app.command()
def replay(
    decision_id: Annotated[str, typer.Argument(help="Id of the decision.")],
    tenant: Annotated[str, typer.Option(help="Whose decision it is.")] = "demo",
) -> None:
    """Compute the probabilities of a logged decision again; exit 1 if they differ in any bit."""
    from bandits.explaining.replay import again, replays

    with place().open_record() as record:
        decision = record.decision(decision_id, tenant)
        policy = _policies().of(decision, record)
    if policy is None:
        raise SnapshotError(
            f"a replay needs the policy that acted, but {decision.policy} of {decision.scope} is not here; "
            "restore its snapshot from a backup."
        )
    for arm, logged, now in zip(decision.arms, decision.probabilities, again(decision, policy), strict=True):
        show(f"{arm:<24} logged {logged:.17g}  again {now:.17g}")
    if not replays(decision, policy):
        show("NOT EQUAL")
        raise typer.Exit(1)
    show("equal, to the last bit")


@app.command()
def verify(
    after: Annotated[int, typer.Option(help="Check the rows behind this position.")] = 0,
    until: Annotated[int | None, typer.Option(help="The last position to check. Left out: the head.")] = None,
    scope: ScopeText = None,
) -> None:
    """Check a range of the record: no gap, no unreadable row, every decision replays; exit 1 otherwise."""
    from bandits.explaining.replay import verify as check

    with place().open_record() as record:
        found = check(record, _policies(), after, until, None if scope is None else Scope.parse(scope))
    show(found.render())
    if not found.ok:
        raise typer.Exit(1)


@app.command("export")
def export_(
    scope: Annotated[str, typer.Argument(metavar="TENANT/WORKSPACE/DOMAIN", help="Whose log.")],
    file: Annotated[Path, typer.Argument(help="Where to write it; must not be there yet.")],
    form: Annotated[Form, typer.Option("--format", help="VW's dsjson, or Parquet.")] = "parquet",
) -> None:
    """Write the logged feedback of a scope for other programs, to the bit."""
    from bandits.interchange import dsjson, parquet
    from bandits.warehouse.loading import read_feedback

    one = scopes(scope)[0]
    found = read_feedback(place().warehouse, one, load_config().domains[one.domain], time.time())
    {"dsjson": dsjson, "parquet": parquet}[form].write(found, file)
    show(f"{len(found)} rounds of {one} in {file}")


@app.command("import")
def import_(
    scope: Annotated[str, typer.Argument(metavar="TENANT/WORKSPACE/DOMAIN", help="Whose log it becomes.")],
    file: Annotated[Path, typer.Argument(help="What `pilotage export` wrote.")],
    form: Annotated[Form, typer.Option("--format", help="VW's dsjson, or Parquet.")] = "parquet",
) -> None:
    """Append logged feedback from a file to the record; a bad row is set aside with its reason, the rest goes on."""
    from bandits.interchange import dsjson, parquet
    from bandits.interchange.entries import entries

    one = scopes(scope)[0]
    found = {"dsjson": dsjson, "parquet": parquet}[form].read(file)
    with place().open_record() as record:
        for pair in entries(found.feedback, one):
            record.append(*pair)
    bad = [f"  set aside: {fault}" for fault in found.quarantined]
    show("\n".join([f"{len(found.feedback)} rounds appended to {one}, {len(bad)} set aside", *bad]))


@audit.command("show")
def audit_show(
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's rows and those of everybody.")] = None,
) -> None:
    """Who changed what, when and why: promotions, nights that kept, keys, configuration."""
    from bandits.record.audit import Audit

    with Audit(place().audit_url) as chain:
        rows = chain.rows(tenant)
    show("\n".join(row.render() for row in rows) or "nothing was changed yet.")


@audit.command("verify")
def audit_verify() -> None:
    """Check every link of the chain, and that it holds what the snapshots signed; exit 1 and name what is broken."""
    from bandits.explaining.audited import broken_links

    faults = broken_links(place())
    show("\n".join(f"FAULT {fault}" for fault in faults) or "whole: every link, and every row that a snapshot signed")
    if faults:
        raise typer.Exit(1)


@app.command()
def backup(
    folder: Annotated[Path, typer.Argument(help="Where backups lie; each gets a folder of its own there.")],
) -> None:
    """Back everything up while it serves. What belongs to people is sealed with keys that an erasure destroys."""
    from bandits.backups.backup import backup as back_up
    from bandits.config import config_path

    made = back_up(place(), config_path(), folder, time.time(), load_config().backup.keep_days)
    show(made.render())


@app.command()
def restore(folder: Annotated[Path, typer.Argument(help="One backup: a folder that `pilotage backup` made.")]) -> None:
    """Bring a backup back into an empty home ($PILOTAGE_HOME); who was erased since stays erased."""
    from bandits.backups.restore import restore as bring_back

    show(bring_back(folder, home(), time.time()).render())


def _policies() -> Policies:
    from bandits.explaining.replay import Policies
    from bandits.snapshots.keys import trusted_keys

    return Policies(load_config().domains, place().snapshots, trusted_keys(place().root))
