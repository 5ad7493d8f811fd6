"""The command line; `pilotage COMMAND --help` says more. The commands themselves: commands/."""

from __future__ import annotations

import sys

import typer

from bandits.errors import PilotageError
from commands.table import app

# In the order in which --help lists them.
# isort: off
from commands import serving, learning, operating, records, people, content  # noqa: F401


def main() -> None:
    """Run a command; an error of ours ends with its text and exit code 1, not with a traceback."""
    try:
        app()
    except PilotageError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
