"""How urgent a study is: what waits is claimed in this order."""

from __future__ import annotations

from enum import IntEnum


class Priority(IntEnum):
    """Urgency of a job. Among equals the oldest comes first."""

    ROUTINE = 0
    HIGH = 1
    STAT = 2


# Requested Procedure Priority (0040,1003), PS3.3 C.4.11; older equipment writes URGENT.
_TERMS = {"STAT": Priority.STAT, "HIGH": Priority.HIGH, "URGENT": Priority.HIGH}


def of_procedure(term: str) -> Priority:
    """The urgency that RequestedProcedurePriority (0040,1003) names; routine where it names none that is known."""
    return _TERMS.get(term.strip().upper(), Priority.ROUTINE)
