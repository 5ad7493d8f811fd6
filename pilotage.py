"""The command line. Each command is a few lines into a room; `pilotage COMMAND --help` says more."""

from __future__ import annotations

import json
import sys
import time
from typing import Annotated, Any

import typer

from bandits.config import Config, home, load_config
from bandits.errors import PilotageError
from bandits.serving import Home
from bandits.types import Scope

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


@app.command()
def demo(seed: Annotated[int, typer.Option(help="Seed of every draw.")] = 0) -> None:
    """Serve a day of real prompts, learn over night, serve the next day, and show what that earned."""
    from benchmarks.demo import run

    run(seed)


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
    from flows.night import night as flow

    reports = [flow(s.tenant, s.workspace, s.domain) for s in _scopes(scope)]
    _print(reports if as_json else "\n\n".join(report["markdown"] for report in reports))


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
    from bandits.keys import trusted_keys
    from bandits.why import explain

    place = _home()
    with place.open_record() as record:
        decision = record.decision(decision_id, tenant)
        outcomes = record.outcomes(decision_id)
    domain = load_config().domains[decision.scope.domain]
    story = explain(decision, outcomes, domain, place.snapshots, trusted_keys(place.root), time.time())
    _print(story.as_dict() if as_json else story.render())


@app.command()
def doctor(as_json: Json = False) -> None:
    """Check configuration, record, warehouse, keys, snapshots and Prefect; exit 1 and say which is at fault."""
    from bandits.doctor import examine

    checks = examine(_home())
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
    return Home(home())


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
