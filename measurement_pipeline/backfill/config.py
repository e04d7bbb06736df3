"""On what terms the backfill spends hits: the settings of the money path, handed in by whoever starts it."""

from dataclasses import dataclass, field

from measurement_pipeline.domain.backfill_queue import MAX_WAIT_IN_RUN_SECONDS, QueueRules


@dataclass(frozen=True, slots=True)
class BackfillConfig:
    """`hits_allowed` is limit − reserve, of any 30 days. `requests_per_second` 0: no pace limit."""

    database_url: str = field(repr=False)
    rules: QueueRules
    hits_allowed: int
    requests_per_second: float
    concurrency: int
    eur_per_hit: float
    heartbeat_seconds: float = 10.0
    # How long an answer that was paid for is held while the database cannot take it.
    patience_with_database_seconds: float = 60.0

    @property
    def silence_seconds(self) -> float:
        """A run that has not beaten for so long is dead. Nothing beats while an op waits for its next try."""
        return max(self.rules.claim_timeout_seconds, MAX_WAIT_IN_RUN_SECONDS + 15.0)
