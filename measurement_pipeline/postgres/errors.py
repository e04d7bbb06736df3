"""Classify PostgreSQL errors by SQLSTATE: retry, settle one row, or stop (decision 0024).

The only module that knows which SQLSTATEs are transient or about a row.
"""

from enum import StrEnum

import psycopg


class ErrorKind(StrEnum):
    """What an error means for the statement."""

    TRANSIENT = "transient"  # the server cannot do it at the moment: the same statement succeeds later
    ROW = "row"  # the server refuses this row's values: the same row never succeeds, others do
    DEFECT = "defect"  # privilege, missing table, syntax, internal error: a person has to act


# Whole classes (two characters) or single states. 08 connection, 40 transaction rollback, 53 insufficient resources, 57 operator
# intervention, 58 system error; 25006 read-only transaction, 25P03 and 25P04 timeouts of the session, 55006 object in use,
# 55P03 lock not available.
_TRANSIENT = ("08", "25006", "25P03", "25P04", "40", "53", "55006", "55P03", "57", "58")

# 22 data exception, 23 integrity constraint, 44 check option, 54 program limit (a value too large), P0001 raised by a trigger.
_ROW = ("22", "23", "44", "54", "P0001")


def classify(error: Exception) -> ErrorKind:
    """Classify `error`. An error that is not PostgreSQL's is a defect."""
    state = getattr(error, "sqlstate", None)
    if state is None:
        # psycopg's own: a connection that failed or was lost; a value that it cannot send.
        if isinstance(error, psycopg.OperationalError):
            return ErrorKind.TRANSIENT
        return ErrorKind.ROW if isinstance(error, psycopg.DataError) else ErrorKind.DEFECT
    if state.startswith(_TRANSIENT):
        return ErrorKind.TRANSIENT
    return ErrorKind.ROW if state.startswith(_ROW) else ErrorKind.DEFECT


def is_transient(error: Exception) -> bool:
    """Whether the same work can succeed later without a change."""
    return classify(error) is ErrorKind.TRANSIENT


def is_outage(error: Exception) -> bool:
    """Whether the server is the cause, whatever the statement: not a deadlock, a full memory or a cancelled statement."""
    state = getattr(error, "sqlstate", None) or ""
    return is_transient(error) and not state.startswith(("40", "53", "57014"))


def is_undone(error: Exception) -> bool:
    """Whether the server rolled the transaction back and would accept it again at once: serialization failure, deadlock."""
    return getattr(error, "sqlstate", None) in {"40001", "40P01"}


def is_read_only(error: Exception) -> bool:
    """Whether the server refused to change anything. A new connection may reach one that does not."""
    return getattr(error, "sqlstate", None) == "25006"


def first_line(error: Exception) -> str:
    """The server's own message in one line; never empty."""
    return str(error).strip().partition("\n")[0] or type(error).__name__
