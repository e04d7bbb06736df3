"""The guards that keep each promise, each with the mistake that would be without it and the test that catches the mistake.

A change replaces one text of one file, which must be there exactly once. What is done with them is `test_guards`.
"""

from dataclasses import dataclass

QUEUE = "measurement_pipeline/postgres/backfill_queue.sql"
LEDGER = "measurement_pipeline/postgres/songstats_ledger.sql"
RESERVE = "measurement_pipeline/postgres/songstats_ledger.py"
REQUESTS = "measurement_pipeline/postgres/measurement_jobs.sql"
SCHEMA = "measurement_pipeline/postgres/migrations/versions/0001_initial.sql"
CAPTURES_SCHEMA = "measurement_pipeline/postgres/migrations/versions/0003_captures.sql"
MIGRATE = "measurement_pipeline/postgres/migrate.py"
DRAIN = "measurement_pipeline/backfill/worker.py"
TRUST = "measurement_pipeline/backfill/circuit_breaker.py"
INTAKE = "measurement_pipeline/intake/process.py"
RULES = "measurement_pipeline/domain/backfill_queue.py"
ANSWERS = "measurement_pipeline/vendors/songstats/historic_stats.py"
CLIENT = "measurement_pipeline/vendors/songstats/client.py"
GATE = "measurement_pipeline/vendors/stripe/payment_gate.py"
CAPTURE = "measurement_pipeline/capture/run.py"
PURCHASE = "measurement_pipeline/capture/actor_runner.py"
CAPTURES_ASKED = "measurement_pipeline/postgres/captures.py"
ACTOR_RUNS = "measurement_pipeline/postgres/apify_runs.sql"


@dataclass(frozen=True)
class Change:
    """`old`, which is in `file` once, becomes `new`."""

    file: str
    old: str
    new: str


@dataclass(frozen=True)
class Guard:
    """A guard in plain words, the test that fails without it, and how it would plausibly be left out."""

    name: str
    caught_by: str
    changes: tuple[Change, ...]


def guard(name: str, caught_by: str, *changes: Change) -> Guard:
    """A guard; its test is named from the tests' own directory."""
    return Guard(name, f"measurement_pipeline_tests/{caught_by}", changes)


# --- the claim ------------------------------------------------------------------------------------------------------------

CLAIM = (
    guard(
        "SKIP LOCKED",
        "postgres/test_backfill_queue.py::test_of_two_claims_at_once_the_second_neither_waits_nor_shares",
        Change(QUEUE, "for update of queue skip locked", "for update of queue"),
    ),
    guard(
        "the materialized claim",
        "postgres/test_backfill_queue.py::test_a_claim_never_takes_more_than_its_limit_under_any_plan",
        Change(
            QUEUE,
            """
with candidate as materialized (
    -- Materialized: inlined, the plan may take more rows than the limit. Skip locked: two runs never wait for, or share, a row.
    select queue.song
""",
            """
with claimed as (
    update songstats_backfill_queue as queue
    set
        status = 'in_progress',
        lease = queue.lease + 1,
        claimed_by = %(run)s,
        last_run = %(run)s,
        claimed_at = clock_timestamp(),
        heartbeat_at = clock_timestamp(),
        not_before = null,
        updated_at = clock_timestamp()
    where queue.song in (
    select queue.song
""",
        ),
        Change(
            QUEUE,
            """
    for update of queue skip locked
),

claimed as (
    update songstats_backfill_queue as queue
    set
        status = 'in_progress',
        lease = queue.lease + 1,
        claimed_by = %(run)s,
        last_run = %(run)s,
        claimed_at = clock_timestamp(),
        heartbeat_at = clock_timestamp(),
        not_before = null,
        updated_at = clock_timestamp()
    from candidate
    where queue.song = candidate.song
""",
            """
    for update of queue skip locked
    )
""",
        ),
    ),
    guard(
        "a claim takes over from the silent only",
        "postgres/test_backfill_queue.py::test_an_owner_that_beats_keeps_its_row_and_one_that_stopped_loses_it",
        Change(
            QUEUE,
            """
            queue.status = 'pending'
            or (
                queue.status = 'in_progress'
                and queue.heartbeat_at < clock_timestamp() - make_interval(secs => %(claim_timeout)s)
            )
""",
            """
            queue.status = 'pending'
            or queue.status = 'in_progress'
""",
        ),
    ),
    guard(
        "terminal states: a claim takes nothing that is settled",
        "postgres/test_backfill_queue.py::test_what_is_due_is_what_the_design_says_and_the_claim_agrees[allowed]",
        Change(
            QUEUE,
            """
            queue.status = 'pending'
            or (
""",
            """
            queue.status <> 'in_progress'
            or (
""",
        ),
        Change(
            QUEUE,
            """
        status = 'in_progress',
        lease = queue.lease + 1,
""",
            """
        status = 'in_progress',
        outcome = null,
        lease = queue.lease + 1,
""",
        ),
    ),
    guard(
        "terminal states: a requeue takes nothing that is stored",
        "postgres/test_backfill_queue.py::test_a_person_puts_back_what_is_settled_but_never_what_is_stored",
        Change(
            QUEUE,
            """
        queue.song = any(%(songs)s)
        and queue.status in ('done', 'failed')
        and queue.outcome is distinct from 'stored'
""",
            """
        queue.song = any(%(songs)s)
        and queue.status in ('done', 'failed')
""",
        ),
    ),
    guard(
        "terminal states: each status has its own outcomes",
        "postgres/test_migrate.py::test_the_outcomes_of_each_status_are_the_same_in_sql",
        Change(
            SCHEMA, "when 'failed' then outcome in ('malformed', 'exhausted', 'transient') and ", "when 'failed' then "
        ),
    ),
    guard(
        "the cap on attempts",
        "postgres/test_backfill_queue.py::test_a_run_may_claim_again_what_it_counted_the_last_attempt_of",
        Change(
            QUEUE,
            "(queue.attempts < %(max_attempts)s or queue.attempt_run = %(run)s)",
            "(queue.attempts <= %(max_attempts)s or queue.attempt_run = %(run)s)",
        ),
    ),
)

# --- the lease ------------------------------------------------------------------------------------------------------------

_WITH_LEASE, _WITHOUT = "on asked.song = queue.song and asked.lease = queue.lease", "on asked.song = queue.song"

LEASE = (
    guard(
        "the lease predicate of the heartbeat",
        "postgres/test_backfill_queue.py::test_a_run_that_claimed_its_own_row_anew_is_fenced_from_its_former_self",
        Change(QUEUE, "on queue.song = mine.song and queue.lease = mine.lease", "on queue.song = mine.song"),
    ),
    guard(
        "the lease predicate of settling",
        "postgres/test_backfill_queue.py::test_a_run_that_claimed_its_own_row_anew_is_fenced_from_its_former_self",
        Change(QUEUE, _WITH_LEASE, _WITHOUT),
    ),
    guard(
        "the lease predicate of the reserve",
        "postgres/test_songstats_ledger.py::test_a_run_that_claimed_its_own_row_anew_reserves_nothing_under_its_former_lease",
        Change(LEDGER, _WITH_LEASE, _WITHOUT),
    ),
    guard(
        "measurements are stored under the lease",
        "postgres/test_backfill_queue.py::test_rows_and_their_measurements_commit_together_and_each_under_its_own_lease",
        Change(QUEUE, "inner join held on series.song = held.song", "inner join asked on series.song = asked.song"),
    ),
)

# --- hits -----------------------------------------------------------------------------------------------------------------

_LOCK = '        await connection.execute(_SQL["reserve_lock"])\n'
_LAST_HIT = "faults/test_hit_limit.py::test_whoever_waited_for_the_last_hit_finds_it_gone"

HITS = (
    guard("the advisory lock of the reserve", _LAST_HIT, Change(RESERVE, _LOCK, "")),
    guard(
        "the advisory lock is a statement of its own",
        _LAST_HIT,
        Change(RESERVE, _LOCK, ""),
        Change(
            LEDGER,
            """
    select %(hits_allowed)s - count(*) as hits_left
    from songstats_quota_ledger
""",
            """
    select %(hits_allowed)s - count(*) as hits_left
    from songstats_quota_ledger
    cross join (select pg_advisory_xact_lock(hashtextextended('songstats_quota', 0))) as locked
""",
        ),
    ),
    guard(
        "the budget counts hits that are still open",
        _LAST_HIT,
        Change(
            LEDGER,
            """and billable is distinct from false
),

granted as (""",
            """and billable
),

granted as (""",
        ),
    ),
    guard(
        "the budget counts hits of unknown fate",
        "postgres/test_songstats_ledger.py::test_a_hit_counts_for_thirty_days_unless_it_is_known_to_be_free[1 day-None-True]",
        Change(
            LEDGER,
            """and billable is distinct from false
)

select
    counted.hits,""",
            """and billable
)

select
    counted.hits,""",
        ),
    ),
    guard(
        "reserve before the call",
        "backfill/test_money_path.py::test_no_call_goes_out_before_its_hit_is_set_aside",
        Change(
            DRAIN,
            "reserved, stale = await self._reserve([claim for claim in batch if claim.song in self._held])",
            "reserved, stale = [(claim, _NEVER_ASKED) for claim in batch if claim.song in self._held], {}",
        ),
        Change(
            DRAIN,
            """
            answer = await self._client.fetch_history(claim.song)
""",
            """
            answer = await self._client.fetch_history(claim.song)
            ((claim, reservation),), _ = await self._reserve([claim])
""",
        ),
    ),
    guard(
        "keep before parsing and storing",
        "backfill/test_money_path.py::test_an_answer_is_kept_before_anything_is_made_of_it",
        Change(
            DRAIN,
            """
            batch = await _gathered(self._to_keep)
""",
            """
            batch = await _gathered(self._to_keep)
            await self._settle_batch(batch)
""",
        ),
        Change(
            DRAIN,
            """
            for item in kept:
                self._to_settle.put_nowait(item)
""",
            """
            self._land(len(kept))
""",
        ),
    ),
    guard(
        "an answer to an earlier owner's call is read, not bought again",
        "postgres/test_songstats_ledger.py::test_a_recording_whose_earlier_call_was_answered_meanwhile_is_not_bought_again",
        Change(
            LEDGER,
            """
        and not exists (
            select from songstats_responses as response
            where response.song = queue.song and response.parser_version is null
        )
""",
            "\n",
        ),
    ),
    guard(
        "owned recordings are skipped by intake",
        "intake/test_process.py::test_a_request_for_what_is_owned_is_done_at_once",
        Change(
            REQUESTS,
            """
        case when fresh.owned then 'done' else 'pending' end as status,
        case when fresh.owned then 'stored' end as outcome
""",
            """
        'pending' as status,
        null as outcome
""",
        ),
    ),
    guard(
        "owned recordings are skipped by a run",
        "backfill/test_money_path.py::test_measurements_without_a_settled_row_are_owned_and_cost_nothing",
        Change(
            DRAIN,
            """
            elif claim.has_history:
                owned = Settling(claim, Settlement(Status.DONE, Outcome.STORED))
                await self._settle_one(
                    owned, RecordingResult(claim.song, ResultKind.ALREADY_STORED, outcome=Outcome.STORED)
                )
""",
            "\n",
        ),
    ),
    guard(
        "the same payload twice adds nothing",
        "postgres/test_backfill_queue.py::test_the_same_payload_twice_adds_nothing",
        Change(QUEUE, "    where newest.value is distinct from point.value\n", ""),
    ),
    guard(
        "no redirect is followed",
        "vendors/songstats/test_client.py::test_a_redirect_is_not_followed_wherever_it_points[https://elsewhere.test/]",
        Change(
            CLIENT,
            """
                response = await line.handle_async_request(request)
""",
            """
                response = await line.handle_async_request(request)
                if response.has_redirect_location:
                    await response.aclose()
                    onward = httpx.Request("GET", response.headers["location"], headers=self._headers)
                    response = await line.handle_async_request(onward)
""",
        ),
    ),
)

# --- payment --------------------------------------------------------------------------------------------------------------

PAYMENT = (
    guard(
        "unknown is not allowed: Stripe gives no answer",
        "vendors/stripe/test_payment_gate.py::"
        "test_whatever_keeps_stripe_from_answering_is_neither_allowed_nor_denied[False-fault5-HTTP 500]",
        Change(
            GATE,
            "return Decision(PaymentVerdict.UNKNOWN, in_words(error)",
            "return Decision(PaymentVerdict.ALLOWED, in_words(error)",
        ),
    ),
    guard(
        "unknown is not allowed: a 404 that is not about the customer",
        "vendors/stripe/test_payment_gate.py::test_a_404_of_stripes_own_that_is_not_about_a_customer_does_not_say_that_it_is_gone",
        Change(GATE, ' and error.code == "resource_missing"', ""),
    ),
    guard(
        "unknown is not allowed: a request is taken in",
        "intake/test_process.py::test_nothing_is_enqueued_without_an_allowed_decision[unknown]",
        Change(INTAKE, "if decision is None or decision.verdict is PaymentVerdict.UNKNOWN:", "if decision is None:"),
    ),
    guard(
        "unknown is not allowed: an account nobody asked about",
        "postgres/test_backfill_queue.py::test_what_is_due_is_what_the_design_says_and_the_claim_agrees[allowed]",
        Change(
            SCHEMA,
            """
inner join payment_decisions as decision on request.account = decision.account
where request.state = 'accepted' and decision.verdict = 'allowed';
""",
            """
left join payment_decisions as decision on request.account = decision.account
where request.state = 'accepted' and decision.verdict is distinct from 'denied';
""",
        ),
    ),
    guard(
        "a decision is spent on for ten minutes",
        "postgres/test_songstats_ledger.py::test_a_decision_is_spent_on_for_ten_minutes[10 minutes 1 second-stale]",
        Change(
            LEDGER,
            "pays.checked_at > clock_timestamp() - make_interval(secs => %(allowed_serves)s)",
            "pays.checked_at is not null",
        ),
    ),
)

# --- the vendor and the deployment ----------------------------------------------------------------------------------------

VENDOR = (
    guard(
        "the streak breaker",
        "backfill/test_money_path.py::test_answers_that_make_no_sense_open_the_breaker_at_exactly_so_many_hits[fault0-5]",
        Change(RULES, "    return Streak(refusals, silences)\n", "    return Streak()\n"),
    ),
    guard(
        "the streak goes on across runs",
        "backfill/test_money_path.py::test_a_streak_is_counted_across_runs",
        Change(TRUST, "        self._answers.extend(await self._line.execute_with_retry(ledger.recent_causes))\n", ""),
    ),
    guard(
        "an open breaker stops reservations",
        "postgres/test_songstats_ledger.py::test_nothing_is_set_aside_while_the_breaker_is_open_or_a_pause_lasts",
        Change(LEDGER, "    select breaker = 'closed' and coalesce(", "    select coalesce("),
    ),
    guard(
        "a 429 costs no attempt",
        "domain/test_backfill_queue.py::test_what_was_not_the_rows_fault_gives_the_attempt_back_even_at_the_cap",
        Change(RULES, "not_before_seconds=wait, attempt_back=True)", "not_before_seconds=wait)"),
    ),
    guard(
        "a 429 costs no budget",
        "vendors/songstats/test_historic_stats.py::test_429_says_nothing_of_the_recording_and_is_not_billed",
        Change(ANSWERS, "(None, False, Cause.THROTTLED)", "(None, None, Cause.THROTTLED)"),
    ),
    guard(
        "Retry-After is a floor",
        "domain/test_backfill_queue.py::test_retry_after_is_a_floor",
        Change(
            RULES, "return max(retry_after, guess) if pauses_before else retry_after", "return min(retry_after, guess)"
        ),
    ),
    guard(
        "a status counts only with Songstats' own body",
        "backfill/test_foreign_answers.py::test_a_page_leaves_its_row_pending_and_untried_and_the_others_are_stored[proxy]",
        Change(CLIENT, "return SongstatsResponse.received(status,", "return SongstatsResponse(status,"),
    ),
    guard(
        "what cannot be read is not done",
        "domain/test_backfill_queue.py::test_an_answer_that_says_something_settles_the_row_whatever_came_before",
        Change(RULES, "    Outcome.MALFORMED: Status.FAILED,\n", "    Outcome.MALFORMED: Status.DONE,\n"),
    ),
    guard(
        "the deployment stamp, at every start",
        "postgres/test_migrate.py::test_a_live_process_is_refused_at_a_sandbox_database[require]",
        Change(MIGRATE, "        )\n    _compare(stamped, kind)\n", "        )\n"),
    ),
    guard(
        "the deployment stamp, before a migration",
        "postgres/test_migrate.py::test_a_live_process_is_refused_at_a_sandbox_database[upgrade]",
        Change(MIGRATE, "            _compare(stamped, kind)\n", ""),
    ),
)

# --- captures -------------------------------------------------------------------------------------------------------------

CAPTURES = (
    guard(
        "captures: the account's lock",
        "postgres/test_captures.py::test_whoever_waited_for_the_last_of_the_month_finds_it_gone",
        Change(
            CAPTURES_ASKED,
            """
    lock_account(connection, spec.account)
    connection.execute(_SQL["ensure_account"], parameters)
""",
            """
    connection.execute(_SQL["ensure_account"], parameters)
""",
        ),
    ),
    guard(
        "captures: one run of the actor a part",
        "postgres/test_apify_runs.py::test_a_part_whose_run_may_have_brought_something_has_no_second_one",
        Change(
            CAPTURES_SCHEMA,
            "create unique index apify_runs_one_a_chunk on apify_runs (snapshot, chunk)",
            "create index apify_runs_one_a_chunk on apify_runs (snapshot, chunk)",
        ),
    ),
    guard(
        "captures: a run of the actor is a row before it is started",
        "capture/test_capture.py::test_a_run_of_the_actor_is_a_row_before_it_is_started",
        Change(
            PURCHASE,
            """
        row = apify_runs.record_intent(self._connection, self._snapshot, chunk, album_ids, run=self._run)
        try:
            started = self._actor.start(album_ids)
""",
            """
        try:
            started = self._actor.start(album_ids)
            row = apify_runs.record_intent(self._connection, self._snapshot, chunk, album_ids, run=self._run)
""",
        ),
    ),
    guard(
        "captures: a start whose answer is lost may have been paid",
        "capture/test_capture.py::test_a_start_whose_answer_is_lost_is_looked_for_and_not_paid_again",
        Change(
            PURCHASE,
            """
            if not error.perhaps_started:
                apify_runs.record_not_started(""",
            """
            if True:
                apify_runs.record_not_started(""",
        ),
    ),
    guard(
        "captures: a run is looked for before a second start",
        "capture/test_capture.py::test_a_run_that_died_between_the_start_and_its_id_is_followed_by_one_that_finds_it",
        Change(
            PURCHASE,
            "            found = self._actor.find(bought.album_ids, since=bought.intended_at, besides=taken)\n",
            "            found = None\n",
        ),
    ),
    guard(
        "captures: another's run is not taken for the lost one",
        "capture/test_capture.py::test_another_captures_run_for_the_same_albums_is_not_taken_for_the_lost_one",
        Change(PURCHASE, "since=bought.intended_at, besides=taken)", "since=bought.intended_at)"),
    ),
    guard(
        "captures: keep before mapping",
        "capture/test_capture.py::test_a_result_is_kept_before_anything_is_made_of_it",
        Change(
            CAPTURE,
            "closing(Spotify(self.services.means)) as spotify:",
            "closing(Spotify(self.services.means)) as spotify, self.connection.transaction():",
        ),
    ),
    guard(
        "captures: only the owner stores",
        "postgres/test_apify_runs.py::test_whoever_was_relieved_while_it_mapped_stores_nothing",
        Change(
            ACTOR_RUNS,
            """
where id = %(snapshot)s and claimed_by = %(run)s and state in ('running', 'done')
for update;
""",
            """
where id = %(snapshot)s and state in ('running', 'done')
for update;
""",
        ),
    ),
)

GUARDS = CLAIM + LEASE + HITS + PAYMENT + VENDOR + CAPTURES
