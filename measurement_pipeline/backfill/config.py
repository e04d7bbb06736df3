"""The settings of the money path."""

from dataclasses import dataclass, field

from measurement_pipeline.domain.backfill_queue import MAX_WAIT_IN_RUN_SECONDS, QueueRules


@dataclass(frozen=True, slots=True)
class BackfillConfig:
    """`hits_allowed`: limit − reserve, for any 30 days. `requests_per_second` 0: no pace limit."""

    database_url: str = field(repr=False)
    rules: QueueRules
    hits_allowed: int
    requests_per_second: float
    concurrency: int
    eur_per_hit: float
    # Claims are renewed by each heartbeat: claiming thousands at once would fill the queue's table with dead rows.
    claimed_at_once: int = 500
    # A run that is slower than planned starts no more calls after this time, so that others need not wait for its slot.
    run_seconds: float = 900.0
    heartbeat_seconds: float = 10.0
    # How long a paid response is held in memory while the database is unavailable.
    patience_with_database_seconds: float = 60.0

    @property
    def silence_seconds(self) -> float:
        """A run without a heartbeat for this long is dead. An op that waits for its retry sends none."""
        return max(self.rules.claim_timeout_seconds, MAX_WAIT_IN_RUN_SECONDS + 15.0)
