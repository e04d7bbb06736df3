"""Settles the rows of one run under their leases, and reports each result to the caller.

A row that PostgreSQL refuses must not roll back the others, because their hits are paid for.
"""

from collections.abc import Callable, Sequence
from functools import partial

from measurement_pipeline.backfill.results import RecordingResult, ResultKind, RunSummary
from measurement_pipeline.domain.backfill_queue import Claim, SettledRow, Settlement, Status
from measurement_pipeline.domain.outcome import Outcome
from measurement_pipeline.postgres import backfill_queue
from measurement_pipeline.postgres.database import DatabaseError, ReconnectingConnection
from measurement_pipeline.postgres.errors import ErrorKind, classify, first_line
from measurement_pipeline.vendors.songstats.historic_stats import PARSER_VERSION


class Settler:
    """`held`: the claims that the run still owns; song → claim."""

    def __init__(
        self,
        connection: ReconnectingConnection,
        *,
        run: str,
        summary: RunSummary,
        report: Callable[[Sequence[RecordingResult]], None],
    ) -> None:
        self.held: dict[str, Claim] = {}
        self._connection = connection
        self._run = run
        self._summary = summary
        self._report = report

    def hold(self, claims: Sequence[Claim]) -> None:
        """Note claims that the run now owns."""
        self.held.update((claim.song, claim) for claim in claims)
        self._summary.claimed += len(claims)

    def lose(self, claim: Claim) -> None:
        """Note a claim that the run no longer owns."""
        self.held.pop(claim.song, None)

    async def settle(self, rows: Sequence[SettledRow]) -> dict[str, SettledRow]:
        """Settle the rows that this run still owns; song → settled row.

        A row that PostgreSQL refuses becomes failed/transient with the error, and its response stays unread.
        """
        try:
            return await self._write(rows)
        except DatabaseError as error:
            if classify(error) is not ErrorKind.ROW:
                raise
            if len(rows) > 1:
                return {song: done for row in rows for song, done in (await self.settle([row])).items()}
            failed = Settlement(Status.FAILED, Outcome.TRANSIENT)
            # Tried once: if PostgreSQL refuses this too, the row stays claimed and the error ends the run.
            return await self._write([SettledRow(rows[0].claim, failed, error=first_line(error))])

    async def settle_owned(self, claim: Claim) -> None:
        """Settle a row whose history is stored already."""
        row = SettledRow(claim, Settlement(Status.DONE, Outcome.STORED))
        result = RecordingResult(claim.song, ResultKind.ALREADY_STORED, outcome=Outcome.STORED)
        await self._settle_and_report(row, result)

    async def defer(self, claim: Claim, reason: str, *, wait: float | None) -> None:
        """Return a row to the queue."""
        row = SettledRow(claim, Settlement(Status.PENDING, None, not_before_seconds=wait), error=reason)
        await self._settle_and_report(row, RecordingResult(claim.song, ResultKind.DEFERRED, reason=reason))

    def report(self, results: Sequence[RecordingResult]) -> None:
        """Count results and pass them to the caller."""
        for result in results:
            self._summary.count(result)
        if results:
            self._report(results)

    async def _settle_and_report(self, row: SettledRow, result: RecordingResult) -> None:
        if await self.settle([row]):
            self.report([result])

    async def _write(self, rows: Sequence[SettledRow]) -> dict[str, SettledRow]:
        write = partial(backfill_queue.settle, settlings=rows, run=self._run, parser_version=PARSER_VERSION)
        owned = await self._connection.execute_with_retry(write)
        for row in rows:
            self.lose(row.claim)
        return {row.claim.song: row for row in rows if row.claim.song in owned}
