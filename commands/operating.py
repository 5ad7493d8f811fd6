"""Operate: what serves, how far a rollout is, approve it, abort it, go back; and watch over all of them."""

from __future__ import annotations

import getpass
import threading
import time
from dataclasses import asdict
from typing import Annotated

import typer

from bandits.config import load_config
from commands.table import Json, app, one_scope, place, show

_Scope = Annotated[str, typer.Argument(metavar="TENANT/WORKSPACE/DOMAIN", help="Which scope.")]
_Reason = Annotated[str, typer.Option(help="Why: it stands in the order and in the audit chain.")]


@app.command()
def rollback(
    scope: _Scope,
    reason: _Reason,
    to: Annotated[str | None, typer.Option(help="Version to go back to. Left out: the one before.")] = None,
) -> None:
    """Serve an older version from now on, and nobody the canary: a new order, which every server takes in seconds."""
    from bandits.rollout.giving import roll_back
    from bandits.rollout.watching import render
    from bandits.snapshots.keys import signing_key

    home, config = place(), load_config()
    key, now = signing_key(home.root), time.time()
    show(render(roll_back(home, one_scope(scope), config, key, now, who=getpass.getuser(), why=reason, to=to)))


@app.command()
def rollout(scope: _Scope, as_json: Json = False) -> None:
    """What serves a scope, how far a rollout is, and what its evidence says so far."""
    from bandits.rollout.status import status

    home, config = place(), load_config()
    found = status(home, config, one_scope(scope), time.time())
    if as_json:
        show(asdict(found) | {"scope": scope})
    else:
        show(found.render())


@app.command()
def approve(scope: _Scope, reason: _Reason) -> None:
    """Let a rollout that waits for a person begin."""
    from bandits.rollout import giving
    from bandits.rollout.watching import render
    from bandits.snapshots.keys import signing_key

    home, one = place(), one_scope(scope)
    order = giving.approve(home, one, signing_key(home.root), time.time(), who=getpass.getuser(), why=reason)
    show(render(order))


@app.command()
def abort(scope: _Scope, reason: _Reason) -> None:
    """Give up a rollout that is under way: what served before goes on."""
    from bandits.rollout import giving
    from bandits.rollout.watching import render
    from bandits.snapshots.keys import signing_key

    home, one = place(), one_scope(scope)
    order = giving.abort(home, one, signing_key(home.root), time.time(), who=getpass.getuser(), why=reason)
    show(render(order))


@app.command()
def watch() -> None:
    """Look after every rollout, apart from the processes that serve, until Ctrl-C: renew, advance, roll back."""
    from bandits.rollout.watching import watch as run

    stop = threading.Event()
    try:
        run(place(), load_config(), typer.echo, stop)
    except KeyboardInterrupt:
        stop.set()
