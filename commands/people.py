"""What is kept of people, and how it is taken away."""

from __future__ import annotations

import json
import time
from typing import Annotated

import typer

from bandits.config import load_config
from commands.table import place, privacy, show

User = Annotated[str, typer.Argument(help="The user, as the app names them.")]


@privacy.command("export")
def privacy_export(user: User, tenant: Annotated[str, typer.Option(help="Whose user it is.")] = "demo") -> None:
    """Everything that is kept of a person: one JSON object a decision, with what came back for it."""
    from bandits.ids import IdRing
    from bandits.privacy.erasing import export
    from bandits.privacy.people import People
    from bandits.privacy.prompts import Prompts

    here = place()
    prompts = Prompts(here.prompts, People(here.people)) if here.prompts.exists() else None
    with here.open_record() as record:
        for found in export(record, tenant, IdRing(here.root).pseudonym(tenant, user), prompts):
            typer.echo(json.dumps(found, ensure_ascii=False))


@privacy.command("erase")
def privacy_erase(user: User, tenant: Annotated[str, typer.Option(help="Whose user it is.")] = "demo") -> None:
    """Take away all that is kept of a person, for good, and learn anew without it. Twice is once."""
    from bandits.ids import IdRing
    from bandits.privacy.erasing import erase

    here = place()
    show(erase(here, load_config(), tenant, IdRing(here.root).pseudonym(tenant, user), time.time()).render())


@privacy.command("sweep")
def privacy_sweep() -> None:
    """Erase what is older than each tenant wants it kept (retention_days in pilotage.toml)."""
    from bandits.privacy.erasing import sweep

    found = sweep(place(), load_config(), time.time())
    show("\n".join(f"{tenant}: {report.render()}" for tenant, report in found.items()) or "nothing is that old.")
