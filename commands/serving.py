"""Serve: over HTTP, on Discord, in a browser; keys, and whether all is well."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from bandits.config import home, load_config
from bandits.errors import ConfigError
from bandits.home import Home
from commands.table import Json, app, place, show


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
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8080,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Processes that share the port and the record.")] = 1,
) -> None:
    """Serve OpenAI's API, decisions, feedback and the pilot over HTTP, until Ctrl-C."""
    from service.run import serve as run

    run(host, port, workers)


@app.command()
def key(
    tenant: Annotated[str, typer.Argument(help="Whose requests the key stands for.")],
    name: Annotated[str, typer.Argument(help="What it is for, so that you know it again.")],
    scope: Annotated[
        list[str] | None, typer.Option(help="What it is good for: route, feedback, read, operate or admin; repeat it.")
    ] = None,
) -> None:
    """Make an API key for the HTTP service: for route, feedback and read, unless told otherwise. It is shown once."""
    from service.keys import APP, make_key, note

    if tenant not in load_config().tenants:
        raise ConfigError(f"a key's tenant must be configured, but pilotage.toml has no [tenants.{tenant}].")
    scopes = tuple(scope or APP)
    made = make_key(place(), tenant, name, scopes)
    note(place(), tenant, "command line", "an API key was made", {"name": name, "scopes": scopes})
    show(made)


@app.command()
def keys(as_json: Json = False) -> None:
    """List the API keys: how each begins, whose it is, what it is good for, and until when."""
    from service.keys import list_keys

    found = list_keys(place())
    if as_json:
        show([{"prefix": k.prefix, "tenant": k.tenant, "name": k.name, "scopes": k.scopes,
               "created": k.created, "expires": k.expires} for k in found])  # fmt: skip
        return
    ends = [time.strftime("until %Y-%m-%d %H:%M UTC", time.gmtime(k.expires)) if k.expires else "" for k in found]
    lines = [f"{k.prefix}…  {k.tenant}/{k.name}  {','.join(k.scopes)}  {e}" for k, e in zip(found, ends, strict=True)]
    show("\n".join(line.rstrip() for line in lines) or "there is no key; make one with `pilotage key`.")


@app.command()
def renew(
    prefix: Annotated[str, typer.Argument(help="How the key to be replaced begins; `pilotage keys` lists them.")],
    overlap_hours: Annotated[float, typer.Option(min=0.0, help="How long the old one stays good.")] = 24.0,
) -> None:
    """Make the successor of an API key, good for the same, and let the old one end. It is shown this once."""
    from service.keys import list_keys, note, renew_key

    made = renew_key(place(), prefix, overlap_hours * 3600.0)
    new = list_keys(place())[-1]
    note(
        place(),
        new.tenant,
        "command line",
        "an API key was renewed",
        {"name": new.name, "overlap_hours": overlap_hours},
    )
    show(made)


@app.command()
def revoke(prefix: Annotated[str, typer.Argument(help="How the key begins; `pilotage keys` lists them.")]) -> None:
    """End an API key now: the next request with it is refused."""
    from service.keys import note, revoke_key

    gone = revoke_key(place(), prefix)
    note(place(), gone.tenant, "command line", "an API key was revoked", {"name": gone.name})
    show(f"{gone.prefix}… of {gone.tenant}/{gone.name} is good for nothing any more.")


@app.command()
def rotate() -> None:
    """Sign decision ids with a new key from now on. Ids that were answered before stay good while their key is kept."""
    from bandits.snapshots.keys import rotate_id_key

    key = rotate_id_key(place().root)
    show(f"key {key.id} signs decision ids; delete an older one in {place().root / 'keys' / 'ids'} to retire it.")


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
    from bandits.explaining.doctor import examine

    try:
        here = place()
    except ConfigError:  # the check of the configuration tells
        here = Home(home())
    checks = examine(here)
    lines = [f"{'ok  ' if check.ok else 'FAULT'} {check.name}: {check.found}" for check in checks]
    show([check._asdict() for check in checks] if as_json else "\n".join(lines))
    if not all(check.ok for check in checks):
        raise typer.Exit(1)
