"""The command line. Each command is a few lines into a room; `pilotage COMMAND --help` says more."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from bandits.config import Config, home, load_config
from bandits.errors import ConfigError, PilotageError, SnapshotError
from bandits.serving import Home
from bandits.types import Scope

if TYPE_CHECKING:
    from bandits.replay import Policies

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Decides which model should answer each prompt, learns from every answer, and proves a change first.",
)
Json = Annotated[bool, typer.Option("--json", help="Print JSON for a machine to read.")]
ScopeText = Annotated[
    str | None, typer.Argument(metavar="[TENANT/WORKSPACE/DOMAIN]", help="One scope. Left out: every configured one.")
]


pilot = typer.Typer(no_args_is_help=True, help="The content pilot: documents in, insight out.")
app.add_typer(pilot, name="pilot")
audit = typer.Typer(no_args_is_help=True, help="The chain of what was changed, by whom and why.")
app.add_typer(audit, name="audit")
privacy = typer.Typer(no_args_is_help=True, help="What is kept of a person, and how it is taken away.")
app.add_typer(privacy, name="privacy")
User = Annotated[str, typer.Argument(help="The user, as the app names them.")]
Form = Literal["dsjson", "parquet"]


@app.command()
def demo(
    seed: Annotated[int, typer.Option(help="Seed of every draw.")] = 0,
    serve: Annotated[bool, typer.Option(help="End by opening the dashboard, until Ctrl-C.")] = False,
) -> None:
    """Serve a day of real prompts, learn over night, serve the next day, and show what that earned."""
    from benchmarks.demo import run

    run(seed)
    if serve:
        dashboard(port=0, browser=True)


@app.command()
def load(as_json: Json = False) -> None:
    """Bring the warehouse up to date with the record; rebuilds it where it was deleted."""
    from bandits.warehouse import load as bring

    with _home().open_record() as record:
        loaded = bring(record, _home().warehouse)
    text = f"{loaded.rows} rows loaded, {loaded.quarantined} quarantined, up to position {loaded.position}."
    _print(loaded._asdict() if as_json else text)


@app.command()
def night(scope: ScopeText = None, as_json: Json = False) -> None:
    """Learn from the log and publish a policy, if the evidence allows (a Prefect flow)."""
    from flows import check_server

    check_server()
    from rich.console import Console
    from rich.progress import Progress

    from flows.night import watched

    reports, trials = [], load_config().night.trials
    with Progress(console=Console(stderr=True), transient=True) as progress:
        for one in _scopes(scope):
            bar = progress.add_task(str(one), total=trials)
            flow = watched(lambda done, bar=bar: progress.update(bar, completed=done))  # type: ignore[misc]
            reports.append(flow(one.tenant, one.workspace, one.domain, time.time()))
    _print(reports if as_json else "\n\n".join(report["markdown"] for report in reports))


@app.command()
def evaluate(
    scope: ScopeText = None,
    policy: Annotated[str, typer.Option(help="Version of a snapshot; latest, fixed or mix.")] = "latest",
    baseline: Annotated[str | None, typer.Option(help="The same; left out: what served.")] = None,
    seen: Annotated[bool, typer.Option(help="Judge also by rounds that the policy may have learned from.")] = False,
    as_json: Json = False,
) -> None:
    """Judge a policy by the contexts that were logged: value, cost, agreement, and whether it is better."""
    from bandits.evaluate import evaluate as judge
    from bandits.evaluate import save
    from bandits.evaluate_table import render

    place, found = _home(), []
    for one in _scopes(scope):
        domain = load_config().domains[one.domain]
        found.append(judge(place, one, domain, policy, baseline, now=time.time(), seen=seen))
        save(found[-1], place.warehouse)
    _print([one.run() for one in found] if as_json else "\n\n".join(render(one) for one in found))


@app.command()
def snapshots(scope: ScopeText = None, as_json: Json = False) -> None:
    """List the published policies, newest last, and whether each still verifies. Exit 1 if one does not."""
    from bandits.keys import trusted_keys
    from bandits.snapshots import list_versions

    place, now, found = _home(), time.time(), []
    for one in _scopes(scope):
        for listed in list_versions(place.snapshots, one, trusted=trusted_keys(place.root), now=now):
            m = listed.manifest
            found.append(
                {
                    "scope": str(one),
                    "version": listed.version,
                    "kind": m.kind if m else None,
                    "position": m.position if m else None,
                    "created": m.created if m else None,
                    "content": m.content if m else None,
                    "fault": listed.fault,
                }
            )
    lines = [f"{f['scope']} {f['version']} {f['kind'] or '?':<7} {f['fault'] or 'ok'}" for f in found]
    _print(found if as_json else "\n".join(lines) or "no snapshot was published yet; run `pilotage night`.")
    if any(f["fault"] for f in found):
        raise typer.Exit(1)


@app.command()
def why(
    decision_id: Annotated[str, typer.Argument(help="Id of the decision.")],
    tenant: Annotated[str, typer.Option(help="Whose decision it is.")] = "demo",
    as_json: Json = False,
) -> None:
    """Tell the story of one decision: arms, probabilities, estimates, what came back, and whether it replays."""
    from bandits.ids import bare
    from bandits.keys import trusted_keys
    from bandits.why import explain

    place, decision_id = _home(), bare(decision_id)
    with place.open_record() as record:
        decision = record.decision(decision_id, tenant)
        outcomes = record.outcomes(decision_id)
        domain = load_config().domains[decision.scope.domain]
        story = explain(decision, outcomes, domain, place.snapshots, trusted_keys(place.root), time.time(), record)
    _print(story.as_dict() if as_json else story.render())


@app.command()
def replay(
    decision_id: Annotated[str, typer.Argument(help="Id of the decision.")],
    tenant: Annotated[str, typer.Option(help="Whose decision it is.")] = "demo",
) -> None:
    """Compute the probabilities of a logged decision again; exit 1 if they differ in any bit."""
    from bandits.replay import again, replays

    with _home().open_record() as record:
        decision = record.decision(decision_id, tenant)
        policy = _policies().of(decision, record)
    if policy is None:
        raise SnapshotError(
            f"a replay needs the policy that acted, but {decision.policy} of {decision.scope} is not here; "
            "restore its snapshot from a backup."
        )
    for arm, logged, now in zip(decision.arms, decision.probabilities, again(decision, policy), strict=True):
        _print(f"{arm:<24} logged {logged:.17g}  again {now:.17g}")
    if not replays(decision, policy):
        _print("NOT EQUAL")
        raise typer.Exit(1)
    _print("equal, to the last bit")


@app.command()
def verify(
    after: Annotated[int, typer.Option(help="Check the rows behind this position.")] = 0,
    until: Annotated[int | None, typer.Option(help="The last position to check. Left out: the head.")] = None,
    scope: ScopeText = None,
) -> None:
    """Check a range of the record: no gap, no unreadable row, every decision replays; exit 1 otherwise."""
    from bandits.replay import verify as check

    with _home().open_record() as record:
        found = check(record, _policies(), after, until, None if scope is None else Scope.parse(scope))
    _print(found.render())
    if not found.ok:
        raise typer.Exit(1)


@pilot.command("run")
def pilot_run(
    paths: Annotated[
        list[Path] | None, typer.Argument(help="Text, Markdown, WebVTT, SRT, JSON transcript. None: an example.")
    ] = None,
    tenant: Annotated[str, typer.Option(help="For whom.")] = "demo",
    workspace: Annotated[str, typer.Option(help="Which of the tenant's workspaces.")] = "main",
    segment: Annotated[bool, typer.Option(help="Cut documents into passages.")] = True,
    embed: Annotated[bool, typer.Option(help="Compute vectors.")] = True,
    orchestrator: Annotated[str, typer.Option(help="auto, langgraph or sequential.")] = "auto",
    as_json: Json = False,
) -> None:
    """Ingest, segment, embed and analyse documents. Exit 1 if the run failed."""
    from graphs import EXAMPLE
    from graphs.pilot import run_pilot
    from graphs.render import render
    from graphs.state import PilotRequest

    load_config().check_workspace(tenant, workspace)
    request = PilotRequest(tenant, workspace, paths or [EXAMPLE], segment, embed)
    result = run_pilot(request, orchestrator=orchestrator)  # type: ignore[arg-type]  # it checks the word itself
    _print(result.to_dict() if as_json else render(result).rstrip())
    if result.status == "failed":
        raise typer.Exit(1)


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8080,
) -> None:
    """Serve decisions, feedback and the pilot over HTTP, until Ctrl-C."""
    from service.run import serve as run

    run(host, port)


@app.command()
def key(
    tenant: Annotated[str, typer.Argument(help="Whose requests the key stands for.")],
    name: Annotated[str, typer.Argument(help="What it is for, so that you know it again.")],
) -> None:
    """Make an API key for the HTTP service. It is shown this once."""
    from bandits.audit import Audit
    from service.keys import make_key

    if tenant not in load_config().tenants:
        raise ConfigError(f"a key's tenant must be configured, but pilotage.toml has no [tenants.{tenant}].")
    made = make_key(_home(), tenant, name)
    with Audit(_home().audit_url) as chain:
        why, evidence = "an API key was made", {"name": name}
        chain.append("key", tenant=tenant, who="command line", why=why, evidence=evidence, time=time.time())
    _print(made)


@privacy.command("export")
def privacy_export(user: User, tenant: Annotated[str, typer.Option(help="Whose user it is.")] = "demo") -> None:
    """Everything that is kept of a person: one JSON object a decision, with what came back for it."""
    from bandits.ids import IdRing
    from bandits.people import People
    from bandits.privacy import export
    from bandits.prompts import Prompts

    place = _home()
    prompts = Prompts(place.prompts, People(place.people)) if place.prompts.exists() else None
    with place.open_record() as record:
        for found in export(record, tenant, IdRing(place.root).pseudonym(tenant, user), prompts):
            typer.echo(json.dumps(found, ensure_ascii=False))


@privacy.command("erase")
def privacy_erase(user: User, tenant: Annotated[str, typer.Option(help="Whose user it is.")] = "demo") -> None:
    """Take away all that is kept of a person, for good, and learn anew without it. Twice is once."""
    from bandits.ids import IdRing
    from bandits.privacy import erase

    place = _home()
    _print(erase(place, load_config(), tenant, IdRing(place.root).pseudonym(tenant, user), time.time()).render())


@privacy.command("sweep")
def privacy_sweep() -> None:
    """Erase what is older than each tenant wants it kept (retention_days in pilotage.toml)."""
    from bandits.privacy import sweep

    found = sweep(_home(), load_config(), time.time())
    _print("\n".join(f"{tenant}: {report.render()}" for tenant, report in found.items()) or "nothing is that old.")


@app.command()
def backup(
    folder: Annotated[Path, typer.Argument(help="Where backups lie; each gets a folder of its own there.")],
) -> None:
    """Back everything up while it serves. What belongs to people is sealed with keys that an erasure destroys."""
    from bandits.backup import backup as back_up
    from bandits.config import config_path

    made = back_up(_home(), config_path(), folder, time.time(), load_config().backup.keep_days)
    _print(made.render())


@app.command()
def restore(folder: Annotated[Path, typer.Argument(help="One backup: a folder that `pilotage backup` made.")]) -> None:
    """Bring a backup back into an empty home ($PILOTAGE_HOME); who was erased since stays erased."""
    from bandits.restore import restore as bring_back

    _print(bring_back(folder, home(), time.time()).render())


@app.command("export")
def export_(
    scope: Annotated[str, typer.Argument(metavar="TENANT/WORKSPACE/DOMAIN", help="Whose log.")],
    file: Annotated[Path, typer.Argument(help="Where to write it; must not be there yet.")],
    form: Annotated[Form, typer.Option("--format", help="VW's dsjson, or Parquet.")] = "parquet",
) -> None:
    """Write the logged feedback of a scope for other programs, to the bit."""
    from bandits.interchange import dsjson, parquet
    from bandits.warehouse import read_feedback

    one = _scopes(scope)[0]
    found = read_feedback(_home().warehouse, one, load_config().domains[one.domain], time.time())
    {"dsjson": dsjson, "parquet": parquet}[form].write(found, file)
    _print(f"{len(found)} rounds of {one} in {file}")


@app.command("import")
def import_(
    scope: Annotated[str, typer.Argument(metavar="TENANT/WORKSPACE/DOMAIN", help="Whose log it becomes.")],
    file: Annotated[Path, typer.Argument(help="What `pilotage export` wrote.")],
    form: Annotated[Form, typer.Option("--format", help="VW's dsjson, or Parquet.")] = "parquet",
) -> None:
    """Append logged feedback from a file to the record; a bad row is set aside with its reason, the rest goes on."""
    from bandits.interchange import dsjson, parquet
    from bandits.interchange.entries import entries

    one = _scopes(scope)[0]
    found = {"dsjson": dsjson, "parquet": parquet}[form].read(file)
    with _home().open_record() as record:
        for pair in entries(found.feedback, one):
            record.append(*pair)
    bad = [f"  set aside: {fault}" for fault in found.quarantined]
    _print("\n".join([f"{len(found.feedback)} rounds appended to {one}, {len(bad)} set aside", *bad]))


@audit.command("show")
def audit_show(
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's rows and those of everybody.")] = None,
) -> None:
    """Who changed what, when and why: promotions, nights that kept, keys, configuration."""
    from bandits.audit import Audit

    with Audit(_home().audit_url) as chain:
        rows = chain.rows(tenant)
    _print("\n".join(row.render() for row in rows) or "nothing was changed yet.")


@audit.command("verify")
def audit_verify() -> None:
    """Check every link of the chain, and that it holds what the snapshots signed; exit 1 and name what is broken."""
    from bandits.audited import broken_links

    faults = broken_links(_home())
    _print("\n".join(f"FAULT {fault}" for fault in faults) or "whole: every link, and every row that a snapshot signed")
    if faults:
        raise typer.Exit(1)


@app.command()
def rotate() -> None:
    """Sign decision ids with a new key from now on. Ids that were answered before stay good while their key is kept."""
    from bandits.keys import rotate_id_key

    key = rotate_id_key(_home().root)
    _print(f"key {key.id} signs decision ids; delete an older one in {_home().root / 'keys' / 'ids'} to retire it.")


@app.command()
def bot(
    tenant: Annotated[str, typer.Option(help="For whom it answers.")] = "demo",
    workspace: Annotated[str, typer.Option(help="Which of the tenant's workspaces.")] = "main",
    replay: Annotated[Path | None, typer.Option(help="Recording to answer from. None: the example.")] = None,
) -> None:
    """Answer on Discord, until Ctrl-C. The token comes from PILOTAGE_DISCORD_TOKEN."""
    from bot.run import run

    run(tenant, workspace, replay)


@app.command()
def dashboard(
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 8501,
    browser: Annotated[bool, typer.Option(help="Open a browser.")] = False,
) -> None:
    """Show what it earned, what it cost, and why, in a browser, until Ctrl-C."""
    from dashboard.run import serve as run

    with run(port, browser) as found:
        found.wait()


@app.command()
def doctor(as_json: Json = False) -> None:
    """Check configuration, record, warehouse, keys, snapshots and Prefect; exit 1 and say which is at fault."""
    from bandits.doctor import examine

    try:
        place = _home()
    except ConfigError:  # the check of the configuration tells
        place = Home(home())
    checks = examine(place)
    lines = [f"{'ok  ' if check.ok else 'FAULT'} {check.name}: {check.found}" for check in checks]
    _print([check._asdict() for check in checks] if as_json else "\n".join(lines))
    if not all(check.ok for check in checks):
        raise typer.Exit(1)


def main() -> None:
    """Run a command; an error of ours ends with its text and exit code 1, not with a traceback."""
    try:
        app()
    except PilotageError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)


def _home() -> Home:
    return Home.here()


def _policies() -> Policies:
    from bandits.keys import trusted_keys
    from bandits.replay import Policies

    return Policies(load_config().domains, _home().snapshots, trusted_keys(_home().root))


def _scopes(text: str | None) -> list[Scope]:
    config: Config = load_config()
    if text is None:
        return config.scopes()
    one = Scope.parse(text)
    return [config.scope(one.tenant, one.workspace, one.domain)]


def _print(value: Any) -> None:
    typer.echo(value if isinstance(value, str) else json.dumps(value, indent=2, default=str))


if __name__ == "__main__":
    main()
