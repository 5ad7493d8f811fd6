"""What can be wrong with a document. Each names the document, the line where there is one, and the mend."""

from __future__ import annotations

from typing import Literal

from bandits.errors import PilotageError

Fault = Literal[
    "missing",
    "too_large",
    "unsupported",
    "empty",
    "binary",
    "encoding",
    "format",
    "truncated",
    "times",
    "none_left",
    "refused",
    "unreachable",
]


class IngestError(PilotageError, ValueError):
    """A document cannot be read. `fault` is the kind of fault, `line` counts from 1, `mend` is what to do."""

    def __init__(self, document: str, fault: Fault, problem: str, mend: str, line: int | None = None) -> None:
        self.document, self.fault, self.problem, self.mend, self.line = document, fault, problem, mend, line
        where = document if line is None else f"{document}, line {line}"
        super().__init__(f"{where}: {problem}; {mend}.")


class EmbedError(PilotageError, ValueError):
    """Vectors do not have the dimension, or the rows, that their index needs."""


class RunsError(PilotageError):
    """The store of runs cannot be read or written, or was given what it cannot keep."""


class RunTakenError(RunsError):
    """Another process has taken this run over; whoever meets this stops, and nothing is stored twice."""


class UnknownRunError(RunsError):
    """There is no such run in this tenant."""


class LibraryError(PilotageError, ValueError):
    """The file of the library is held by others, or is none that this version can read."""
