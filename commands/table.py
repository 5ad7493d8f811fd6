"""The table of commands, and what they share."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from bandits.config import Config, load_config
from bandits.errors import ConfigError
from bandits.home import Home
from bandits.types import Scope

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Decides which model should answer each prompt, learns from every answer, and proves a change first.",
)
pilot = typer.Typer(no_args_is_help=True, help="The content pilot: documents in, insight out.")
app.add_typer(pilot, name="pilot")
audit = typer.Typer(no_args_is_help=True, help="The chain of what was changed, by whom and why.")
app.add_typer(audit, name="audit")
privacy = typer.Typer(no_args_is_help=True, help="What is kept of a person, and how it is taken away.")
app.add_typer(privacy, name="privacy")
experiment = typer.Typer(
    no_args_is_help=True, help="What pilotage.toml tries on some users: who sees what, and what it does."
)
app.add_typer(experiment, name="experiment")

Json = Annotated[bool, typer.Option("--json", help="Print JSON for a machine to read.")]
ScopeText = Annotated[
    str | None, typer.Argument(metavar="[TENANT/WORKSPACE/DOMAIN]", help="One scope. Left out: every configured one.")
]


def place() -> Home:
    """The home that environment and configuration name."""
    return Home.here()


def scopes(text: str | None) -> list[Scope]:
    """The scope of `text`, or every configured one."""
    config: Config = load_config()
    if text is None:
        return config.scopes()
    one = Scope.parse(text)
    return [config.scope(one.tenant, one.workspace, one.domain)]


def one_scope(text: str | None) -> Scope:
    """The scope of `text`, or the only one that is configured. Raises ConfigError."""
    found = scopes(text)
    if len(found) != 1:
        raise ConfigError(f"one scope must be named, but there are {', '.join(map(str, found))}; name one of them.")
    return found[0]


def show(value: Any) -> None:
    """Print a text, or anything else as JSON."""
    typer.echo(value if isinstance(value, str) else json.dumps(value, indent=2, default=str))
