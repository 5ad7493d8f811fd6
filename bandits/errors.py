"""Every error that Pilotage raises on purpose. A message says what must hold, what arrived, where, and what to do."""

from __future__ import annotations


class PilotageError(Exception):
    """Base of all: catch this one at an edge (command line, HTTP, bot, flow) and show its text."""


class InvalidNameError(PilotageError, ValueError):
    """A tenant, workspace, domain or arm has a name that cannot be a key everywhere."""


class ConfigError(PilotageError):
    """The configuration is missing, has an unknown key, or a value out of range."""


class ShapeError(PilotageError, ValueError):
    """Arrays that must agree in shape do not."""


class ContextError(PilotageError, ValueError):
    """A context is not finite, or not of the schema that the policy was trained on."""


class PropensityError(PilotageError, ValueError):
    """Probabilities do not form a distribution, or an action was logged with propensity 0."""


class UnknownArmError(PilotageError, KeyError):
    """An arm that the domain does not have."""

    def __str__(self) -> str:
        return str(self.args[0])  # KeyError would show its repr


class RecordError(PilotageError):
    """The record refused a row; nothing of the batch was written."""


class DuplicateDecisionError(RecordError):
    """A decision with this id is already in the record."""


class UnknownDecisionError(RecordError):
    """An outcome names a decision that the record does not hold."""


class DuplicateOutcomeError(RecordError):
    """An outcome of this decision with this key is already in the record."""


class ForeignDecisionError(RecordError):
    """An outcome comes from another scope than the decision that it names."""


class WarehouseError(PilotageError):
    """The warehouse is missing, locked by another process, corrupt, or of another version."""


class NotEnoughDataError(PilotageError):
    """The log is too small, or lacks the support, to train or to judge."""


class SnapshotError(PilotageError):
    """A snapshot is absent, corrupt, unsigned, signed by a foreign key, expired, or not understood."""


class KeyFileError(PilotageError):
    """A key file has the wrong size or content, or others may read or replace it."""


class UnreadableRowError(RecordError):
    """A row of the record does not read back as a decision or an outcome; `position` says which."""

    def __init__(self, message: str, position: int) -> None:
        super().__init__(message)
        self.position = position


class ForgedIdError(UnknownDecisionError):
    """A decision id at an edge was not answered to this tenant and user, whether there is such a decision or not."""


class EvidenceError(PilotageError, ValueError):
    """A score, bound or error rate that a judgement would rest on is not finite or out of its stated range."""


class AuditError(PilotageError):
    """The audit chain cannot be read or written, or was given something that it cannot seal."""


class LedgerError(PilotageError):
    """The ledger of budgets cannot be written, or was asked for what no ledger can keep."""


class BudgetExhaustedError(PilotageError):
    """A cap of money has not enough left; `cap` says which, `left` how much, `resets` when it begins anew."""

    def __init__(self, message: str, cap: str, left: int, resets: float) -> None:
        super().__init__(message)
        self.cap = cap
        self.left = left  # nano-dollars
        self.resets = resets  # UTC, seconds since the epoch


class InterchangeError(PilotageError):
    """A file of logged feedback cannot be written or read at all; a bad row alone is quarantined instead."""


class BackupError(PilotageError):
    """A backup cannot be written, or is not whole, or of another version, or may not be restored there."""


class ExperimentError(PilotageError, ValueError):
    """An experiment's shares, counts or plan do not make sense."""


class UnavailableError(PilotageError):
    """No arm of a domain can answer now."""


class RolloutError(PilotageError):
    """An order of what serves cannot be written or read, or is asked for where it makes no sense."""
