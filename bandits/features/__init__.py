"""What was known when deciding -> context: stateless, named, versioned, the same vector in every process.

Computed once, when deciding, and logged; training reads only what was logged, so no prompt has to be stored.
Anything *fitted* (centre, scale) belongs to the policy. Change a feature only under a new schema name.
"""

from bandits.features.request import Asker, Request, Turn
from bandits.features.schemas import GROUPS, NAMES, check_context, context, names, width, without
from bandits.features.text1 import text_context

__all__ = [
    "GROUPS", "NAMES", "Asker", "Request", "Turn", "check_context", "context", "names", "text_context", "width",
    "without",
]  # fmt: skip
