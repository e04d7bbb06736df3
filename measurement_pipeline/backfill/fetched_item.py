"""A recording between its call and its settlement, and what the database and the caller get of it. No I/O."""

from dataclasses import dataclass

from measurement_pipeline.backfill.results import HistorySummary, RecordingResult, ResultKind
from measurement_pipeline.domain.backfill_queue import Claim, SettledRow, Settlement, Status, settle
from measurement_pipeline.domain.outcome import Judgement, Outcome
from measurement_pipeline.postgres.songstats_ledger import ReceivedResponse, Reservation, ReservationVerdict
from measurement_pipeline.vendors.songstats.historic_stats import digest, judge
from measurement_pipeline.vendors.songstats.response import Failure, SongstatsResponse

NO_RESERVATION = Reservation(ReservationVerdict.RESERVED, None, None, None, None)

_KIND_OF_STATUS = {Status.DONE: ResultKind.SETTLED, Status.FAILED: ResultKind.FAILED}


@dataclass(frozen=True, slots=True)
class FetchedItem:
    """One response. `response_id`: the stored response. `key_works`: what `/status` says of the key, where that was needed.

    `judgement`: None for a complete 200, which is parsed only once it is stored.
    """

    claim: Claim
    reservation: Reservation
    response: SongstatsResponse
    key_works: bool | None = None
    judgement: Judgement | None = None
    response_id: int | None = None


@dataclass(frozen=True, slots=True)
class JudgedItem:
    """A stored response and its meaning. `frees_slot`: the next call need not wait for its settlement."""

    item: FetchedItem
    judgement: Judgement
    frees_slot: bool = False


def judge_item(item: FetchedItem) -> JudgedItem:
    """Parse a stored response, unless it was judged by its status."""
    return JudgedItem(item, item.judgement or judge(item.response, is_key_valid=item.key_works))


def received_response(item: FetchedItem) -> ReceivedResponse:
    """What is stored of the response, and how its hit is settled."""
    response = item.response
    if item.reservation.ledger is None:
        raise ValueError(f"{item.claim.song} was called without a reservation")
    judgement = item.judgement
    if judgement is None:
        return ReceivedResponse(item.reservation.ledger, 200, True, None, response.headers, response.body)
    body = response.body if judgement.billable and response.failure is None else None
    # The ledger holds only the status of complete responses. An unknown hit with a status was answered by something else.
    status = response.status_code if response.failure in {None, Failure.FOREIGN} else None
    return ReceivedResponse(
        item.reservation.ledger, status, judgement.billable, judgement.cause, response.headers, body
    )


def settled_row(judged: JudgedItem, *, max_attempts: int, retry_soon_seconds: float | None) -> SettledRow:
    """The change of the queue's row, and its measurements."""
    item, judgement = judged.item, judged.judgement
    history = judgement.history
    return SettledRow(
        item.claim,
        settle(
            judgement,
            attempts=item.reservation.attempts or max(item.claim.attempts, 1),
            max_attempts=max_attempts,
            retry_soon_seconds=retry_soon_seconds,
        ),
        cause=judgement.cause,
        status_code=item.response.status_code,
        error=None if judgement.outcome is Outcome.STORED else judgement.detail,
        response_id=item.response_id,
        play_counts=history.play_counts if history else (),
        popularity=history.popularity if history else (),
    )


def recording_result(judged: JudgedItem, settlement: Settlement) -> RecordingResult:
    """The result for the caller, once the row is settled."""
    item, judgement = judged.item, judged.judgement
    return RecordingResult(
        item.claim.song,
        _KIND_OF_STATUS.get(settlement.status, ResultKind.DEFERRED),
        outcome=settlement.outcome,
        reason=judgement.detail,
        history=HistorySummary.of(judgement.history) if judgement.history else None,
        status_code=item.response.status_code,
        hit=item.reservation.ledger is not None,
        digest=digest(item.response.body) if item.response.body else None,
        account=item.reservation.account,
        job=item.reservation.job,
    )
