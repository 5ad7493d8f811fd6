"""Operate: what serves, how far a rollout is, approve it, abort it, go back; and watch over all of them."""

from __future__ import annotations

import getpass
import os
import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bandits.config import load_config
from bandits.errors import KeyFileError
from bandits.home import Home
from commands.table import Json, app, one_scope, place, show

if TYPE_CHECKING:
    from bandits.snapshots.keys import SigningKey

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
    from bandits.rollout.status import tell

    home, config, one = place(), load_config(), one_scope(scope)
    show(tell(roll_back(home, one, config, _key(home), time.time(), who=_who(), why=reason, to=to)))


@app.command()
def rollout(scope: _Scope, as_json: Json = False) -> None:
    """What serves a scope, how far a rollout is, and what its evidence says so far."""
    from bandits.rollout.status import status

    home, config = place(), load_config()
    found = status(home, config, one_scope(scope), time.time())
    show(found.as_dict() if as_json else found.render())


@app.command()
def approve(scope: _Scope, reason: _Reason) -> None:
    """Let a rollout that waits for a person begin."""
    from bandits.rollout import giving
    from bandits.rollout.status import tell

    home, one = place(), one_scope(scope)
    show(tell(giving.approve(home, one, _key(home), time.time(), who=_who(), why=reason)))


@app.command()
def abort(scope: _Scope, reason: _Reason) -> None:
    """Give up a rollout that is under way: what served before goes on."""
    from bandits.rollout import giving
    from bandits.rollout.status import tell

    home, one = place(), one_scope(scope)
    show(tell(giving.abort(home, one, _key(home), time.time(), who=_who(), why=reason)))


@app.command()
def watch() -> None:
    """Look after every rollout, apart from the processes that serve, until Ctrl-C: renew, advance, roll back."""
    from bandits.rollout.watching import watch as run

    home, config, stop = place(), load_config(), threading.Event()
    held = "" if _signing(home).exists() else f" {_signing(home)} is not there: until it is, this tells and cannot act."
    typer.echo(f"watching {', '.join(map(str, config.scopes()))} until Ctrl-C.{held}")
    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, lambda *_: stop.set())
    run(home, config, typer.echo, stop)


def _key(home: Home) -> SigningKey:
    """The key that signs orders here. None is made: what it signed would be believed nowhere else."""
    from bandits.snapshots.keys import signing_key

    if not _signing(home).exists():
        raise KeyFileError(
            f"an order must be signed by the home that publishes, but {_signing(home)} is not there; set PILOTAGE_HOME "
            "to that home, or say it on the host that has the key."
        )
    return signing_key(home.root)


def _signing(home: Home) -> Path:
    return home.root / "keys" / "signing.key"


def _who() -> str:
    """Who is asking: the user's name, or the number of one who has none, as in a container."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"
