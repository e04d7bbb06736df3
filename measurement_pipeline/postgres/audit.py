"""What must hold after any fault, asked of the tables themselves. Only reads; what to do about a breach is a person's.

The statements, one an invariant, are in `audit.sql`. What the tables alone cannot show (a hit without a fresh payment decision, a
breaker that opens in time) the fault tests show in the act.
"""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from measurement_pipeline.postgres.database import Connection
from measurement_pipeline.postgres.sql import statements

_SQL = statements("audit")

SAYS = {
    "I1": "no request is lost, receipts add up",
    "I2": "one live claim a recording",
    "I3": "every figure has its evidence",
    "I4": "what is stored is not asked for again",
    "I5": "paid for is kept; done is stored",
    "I6": "one answered hit a recording, every hit has its cause",
    "I8": "what cannot be read is kept, and not done",
    "I9": "a 429 costs nothing",
    "I10": "attempts are capped, claims end",
    "I11": "a deferred recording costs no attempt",
    "I12": "every hit has its payer",
    "I13": "what is shown is there, what is there is shown",
    "I14": "nothing is stored twice",
    "I19": "the database has one stamp",
}
"""What each of the invariants says. Those that the tables cannot show are missing."""


@dataclass(frozen=True, slots=True)
class AuditFinding:
    """How one invariant stands: it holds where `breaches`, each in words, is empty."""

    invariant: str
    says: str
    breaches: tuple[str, ...]


def audit(
    connection: Connection, *, max_attempts: int, at_rest: bool, materialized: AbstractSet[str] | None = None
) -> list[AuditFinding]:
    """Every invariant, and what breaks it.

    `at_rest`: nothing is under way, so that open claims, hits and requests count as breaches too. `materialized`: the ISRCs that
    Dagster shows as materialized; without them I13, which lies between two databases, is left out.
    """
    parameters = {"max_attempts": max_attempts, "at_rest": at_rest}
    found = {
        name: tuple(row["what"] for row in connection.execute(_SQL[name], parameters)) for name in SAYS if name in _SQL
    }
    if materialized is not None:
        found["I13"] = tuple(shown_and_stored(connection, materialized, at_rest=at_rest))
    return [AuditFinding(name, SAYS[name], found[name]) for name in SAYS if name in found]


def shown_and_stored(
    connection: Connection, materialized: AbstractSet[str], *, at_rest: bool, grace_hours: float | None = None
) -> list[str]:
    """Where Dagster's partitions and the queue disagree (I13), in words.

    What is done and not yet shown is a breach only `at_rest`, or once it was so for `grace_hours`: the sweep reports it within
    the hour.
    """
    found = connection.execute(_SQL["settled_or_put_back"], {"grace_hours": 0.0 if at_rest else grace_hours})
    rows = {row["song"]: row["is_to_be_shown"] for row in found}
    untold = [song for song, is_to_be_shown in rows.items() if is_to_be_shown and song not in materialized]
    return [
        *(f"{song} is shown as materialized, and its row is not done" for song in sorted(materialized - rows.keys())),
        *(f"{song} is done, and not shown as materialized" for song in sorted(untold)),
    ]
