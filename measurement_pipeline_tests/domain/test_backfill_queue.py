"""The effect of a response on its row, the waits of rows and the deployment, and the breaker."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from measurement_pipeline.domain.backfill_queue import (
    FOREIGN,
    NO_HISTORIES_BEFORE_BREAKER,
    REJECTIONS_BEFORE_BREAKER,
    STATUS_OF_OUTCOME,
    Interference,
    Settlement,
    Status,
    Streak,
    backoff_seconds,
    count_interference,
    count_streak,
    max_calls_in_flight,
    pause_seconds,
    settle,
)
from measurement_pipeline.domain.outcome import Cause, Judgement, Outcome


def judged(outcome: Outcome | None, cause: Cause, *, billable: bool | None = True) -> Judgement:
    return Judgement(outcome, billable, cause, "detail")


# --- every row of the outcome table -------------------------------------------------------------------------------------


@pytest.mark.fails_without("an unreadable response is not done", parameters="1-None-malformed-")
@pytest.mark.parametrize(
    ("judgement", "status"),
    [
        (judged(Outcome.STORED, Cause.STORED), Status.DONE),
        (judged(Outcome.NO_HISTORY, Cause.NO_HISTORY), Status.DONE),
        (judged(Outcome.REJECTED, Cause.REJECTED), Status.DONE),
        (judged(Outcome.MALFORMED, Cause.MALFORMED), Status.FAILED),
    ],
    ids=lambda value: value.cause if isinstance(value, Judgement) else "",
)
@pytest.mark.parametrize("retry_soon", [None, 4.0])
@pytest.mark.parametrize("attempts", [1, 5, 9])
def test_an_informative_response_settles_the_row_after_any_number_of_attempts(
    judgement: Judgement, status: Status, retry_soon: float | None, attempts: int
):
    result = settle(judgement, attempts=attempts, max_attempts=5, retry_soon_seconds=retry_soon)
    assert result == Settlement(status, judgement.outcome, not_before_seconds=None, attempt_back=False)


@pytest.mark.parametrize("billable", [False, None])
@pytest.mark.parametrize(("attempts", "wait"), [(1, 60.0), (2, 120.0), (4, 480.0)])
def test_a_transient_failure_backs_off_and_counts_its_attempt(*, billable: bool | None, attempts: int, wait: float):
    judgement = judged(Outcome.TRANSIENT, Cause.TRANSIENT, billable=billable)
    result = settle(judgement, attempts=attempts, max_attempts=5, retry_soon_seconds=None)
    assert result == Settlement(Status.PENDING, None, not_before_seconds=wait, attempt_back=False)


@pytest.mark.parametrize("attempts", [5, 6])
def test_a_transient_failure_on_the_last_attempt_exhausts_the_row(attempts: int):
    judgement = judged(Outcome.TRANSIENT, Cause.TIMEOUT, billable=None)
    result = settle(judgement, attempts=attempts, max_attempts=5, retry_soon_seconds=None)
    assert result == Settlement(Status.FAILED, Outcome.EXHAUSTED)


@pytest.mark.parametrize("attempts", [1, 5])
def test_a_run_that_retries_soon_keeps_the_row_even_on_the_last_attempt(attempts: int):
    judgement = judged(Outcome.TRANSIENT, Cause.TRANSIENT, billable=False)
    result = settle(judgement, attempts=attempts, max_attempts=5, retry_soon_seconds=4.0)
    assert result == Settlement(Status.PENDING, None, not_before_seconds=4.0)


@pytest.mark.fails_without("a 429 costs no attempt")
@pytest.mark.parametrize("cause", [Cause.THROTTLED, Cause.REFUSED_KEY])
@pytest.mark.parametrize("retry_soon", [None, 4.0])
def test_an_uninformative_failure_gives_the_attempt_back_even_at_the_last(cause: Cause, retry_soon: float | None):
    result = settle(judged(None, cause, billable=False), attempts=5, max_attempts=5, retry_soon_seconds=retry_soon)
    assert result == Settlement(Status.PENDING, None, not_before_seconds=None, attempt_back=True)


@pytest.mark.parametrize(("retry_soon", "wait"), [(None, 60.0), (4.0, 4.0)])
def test_a_foreign_response_gives_the_attempt_back_and_the_row_waits(retry_soon: float | None, wait: float):
    judgement = judged(None, Cause.TRANSIENT, billable=None)
    result = settle(judgement, attempts=5, max_attempts=5, retry_soon_seconds=retry_soon)
    assert result == Settlement(Status.PENDING, None, not_before_seconds=wait, attempt_back=True)


def test_one_foreign_response_in_five_pauses_at_the_25th_and_opens_the_breaker_at_the_50th_call():
    answers = [FOREIGN if place % 5 == 0 else "stored" for place in range(1, 101)]
    seen = [count_interference(answers[:count][::-1]) for count in range(1, 101)]
    assert next(count for count, one in enumerate(seen, 1) if one.needs_pause) == 25
    assert next(count for count, one in enumerate(seen, 1) if one.reason is not None) == 50


def test_an_outage_of_any_length_is_one_episode_and_opens_no_breaker():
    outage = count_interference([FOREIGN] * 100)
    assert (outage.recent, outage.episodes, outage.reason) == (40, 1, None)
    assert outage.needs_pause
    assert count_interference(["stored"] * 40 + [FOREIGN] * 60) == Interference(0, 1)
    assert count_interference([]) == Interference()


def test_every_outcome_belongs_to_one_status_and_only_done_and_failed_have_any():
    assert set(STATUS_OF_OUTCOME) == set(Outcome)
    assert set(STATUS_OF_OUTCOME.values()) == {Status.DONE, Status.FAILED}


# --- waits --------------------------------------------------------------------------------------------------------------


def test_the_backoff_doubles_from_a_minute_to_six_hours():
    assert [backoff_seconds(attempts) for attempts in (0, 1, 2, 3, 9, 10, 400)] == [
        60.0, 60.0, 120.0, 240.0, 15_360.0, 21_600.0, 21_600.0,
    ]  # fmt: skip


def test_pauses_without_retry_after_grow_from_five_seconds_to_fifteen_minutes():
    assert [pause_seconds(None, pauses_before=n) for n in (0, 1, 2, 3, 7, 8, 10_000)] == [
        5.0, 10.0, 20.0, 40.0, 640.0, 900.0, 900.0,
    ]  # fmt: skip


@pytest.mark.fails_without("Retry-After is a minimum")
@given(st.floats(0, 30 * 86400), st.integers(0, 100))
def test_retry_after_is_a_minimum(retry_after: float, pauses_before: int):
    assert pause_seconds(retry_after, pauses_before=pauses_before) >= retry_after


def test_the_first_retry_after_is_used_unchanged():
    assert pause_seconds(1.0, pauses_before=0) == 1.0
    assert pause_seconds(50_400.0, pauses_before=0) == 50_400.0


def test_a_repeated_retry_after_is_lengthened():
    assert pause_seconds(0.0, pauses_before=1) == 10.0
    assert pause_seconds(3.0, pauses_before=50) == 900.0
    assert pause_seconds(50_400.0, pauses_before=50) == 50_400.0


# --- breaker ------------------------------------------------------------------------------------------------------------


def test_a_stored_history_ends_a_streak():
    causes = [Cause.NO_HISTORY, Cause.REJECTED, Cause.MALFORMED, Cause.STORED, Cause.REJECTED, Cause.NO_HISTORY]
    assert count_streak(causes) == Streak(rejections=2, no_histories=1)


def test_no_response_is_no_streak():
    assert count_streak([]) == Streak()
    assert Streak().reason is None


@pytest.mark.parametrize(
    ("streak", "words"),
    [
        (Streak(rejections=REJECTIONS_BEFORE_BREAKER - 1, no_histories=NO_HISTORIES_BEFORE_BREAKER - 1), None),
        (Streak(rejections=5), "5 rejected or malformed responses and not one stored between"),
        (Streak(no_histories=25), "25 responses without a history and not one stored between"),
        (Streak(rejections=6, no_histories=30), "6 rejected or malformed responses and not one stored between"),
    ],
)
def test_five_rejections_or_twenty_five_missing_histories_open_the_breaker(streak: Streak, words: str | None):
    if words is None:
        assert streak.reason is None
    else:
        assert streak.reason == f"{words}: the key or the vendor changed, not the recordings"


def calls_until_the_breaker_opens(cause: Cause, *, concurrency: int, stored_before: int) -> int:
    """Calls of a run with the allowed concurrency that gets the same response each time, in order."""
    causes: list[Cause] = [Cause.STORED] * stored_before
    in_flight = calls = 0
    while count_streak(causes).reason is None:
        room = (
            max_calls_in_flight(count_streak(causes), has_stored=stored_before > 0, concurrency=concurrency) - in_flight
        )
        calls += max(0, room)
        in_flight += max(0, room)
        assert in_flight, "the run would never end"
        causes.insert(0, cause)
        in_flight -= 1
    return calls


@pytest.mark.parametrize("concurrency", [1, 4, 20, 200])
@pytest.mark.parametrize("cause", [Cause.REJECTED, Cause.MALFORMED])
def test_a_wrong_key_costs_exactly_five_hits_at_any_concurrency(cause: Cause, concurrency: int):
    assert calls_until_the_breaker_opens(cause, concurrency=concurrency, stored_before=0) == 5


@pytest.mark.parametrize("stored_before", [0, 1])
@pytest.mark.parametrize("concurrency", [1, 4, 20, 200])
def test_a_vendor_without_any_history_costs_exactly_twenty_five_hits(concurrency: int, stored_before: int):
    assert calls_until_the_breaker_opens(Cause.NO_HISTORY, concurrency=concurrency, stored_before=stored_before) == 25


@pytest.mark.parametrize("concurrency", [1, 20, 200])
def test_a_key_that_becomes_invalid_costs_only_the_calls_in_flight(concurrency: int):
    spent = calls_until_the_breaker_opens(Cause.REJECTED, concurrency=concurrency, stored_before=3)
    assert 5 <= spent <= max(5, min(concurrency, NO_HISTORIES_BEFORE_BREAKER))


@pytest.mark.parametrize("concurrency", [1, 20, 200])
def test_a_single_call_follows_a_pause(concurrency: int):
    assert max_calls_in_flight(Streak(), has_stored=True, concurrency=concurrency, is_after_pause=True) == 1
    assert max_calls_in_flight(Streak(rejections=5), has_stored=True, concurrency=concurrency, is_after_pause=True) == 0


@given(
    refusals=st.integers(0, 40), silences=st.integers(0, 40), has_stored=st.booleans(), concurrency=st.integers(1, 200)
)  # fmt: skip
def test_calls_in_flight_are_never_negative_and_never_above_the_concurrency(
    refusals: int, silences: int, *, has_stored: bool, concurrency: int
):
    result = max_calls_in_flight(Streak(refusals, silences), has_stored=has_stored, concurrency=concurrency)
    assert 0 <= result <= concurrency
    assert result > 0 or Streak(refusals, silences).reason is not None
