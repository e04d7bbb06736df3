"""Check the invariants that must hold after any fault, from the tables. Read-only: an operator acts on breaches.

`audit.sql` has one statement per invariant. The fault tests cover what the tables cannot show, such as a hit without a
fresh payment decision.
"""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from measurement_pipeline.postgres.database import Connection
from measurement_pipeline.postgres.sql import statements

_SQL = statements("audit")

SAYS = {
    "I1": "no request is lost, receipts add up",
    "I2": "one live claim per recording",
    "I3": "every figure has its evidence",
    "I4": "no call for a stored recording",
    "I5": "paid responses are stored; done rows have measurements",
    "I6": "one answered hit per recording, every hit has its cause",
    "I8": "unparsable responses are stored, and their rows are not done",
    "I9": "a 429 costs nothing",
    "I10": "attempts are capped, claims end",
    "I11": "a deferred recording costs no attempt",
    "I12": "every hit has its payer",
    "I13": "materialized partitions match done rows",
    "I14": "nothing is stored twice",
    "I19": "the database has one stamp",
    "I20": "latest counts match the measurements",
}
"""Text of each invariant. Those that the tables cannot show are missing."""


@dataclass(frozen=True, slots=True)
class AuditFinding:
    """Result for one invariant: it holds if `breaches`, one text each, is empty."""

    invariant: str
    says: str
    breaches: tuple[str, ...]


def audit(
    connection: Connection, *, max_attempts: int, at_rest: bool, materialized: AbstractSet[str] | None = None
) -> list[AuditFinding]:
    """Check every invariant.

    `at_rest`: no run is active, so open claims, hits and requests are breaches too. `materialized`: the ISRCs materialized in
    Dagster; without them I13, which compares two databases, is skipped.
    """
    parameters = {"max_attempts": max_attempts, "at_rest": at_rest}
    found = {
        name: tuple(row["what"] for row in connection.execute(_SQL[name], parameters)) for name in SAYS if name in _SQL
    }
    if materialized is not None:
        found["I13"] = tuple(list_partition_mismatches(connection, materialized, at_rest=at_rest))
    return [AuditFinding(name, SAYS[name], found[name]) for name in SAYS if name in found]


def list_partition_mismatches(
    connection: Connection, materialized: AbstractSet[str], *, at_rest: bool, grace_hours: float | None = None
) -> list[str]:
    """Describe each difference between Dagster's partitions and the queue (I13).

    A done row without a materialization is a breach only `at_rest`, or after `grace_hours`: the reclaim reports it within
    the hour.
    """
    found = connection.execute(_SQL["partition_expectations"], {"grace_hours": 0.0 if at_rest else grace_hours})
    rows = {row["song"]: row["is_overdue"] for row in found}
    overdue = [song for song, is_overdue in rows.items() if is_overdue and song not in materialized]
    return [
        *(f"{song} is shown as materialized, and its row is not done" for song in sorted(materialized - rows.keys())),
        *(f"{song} is done, and not shown as materialized" for song in sorted(overdue)),
    ]
