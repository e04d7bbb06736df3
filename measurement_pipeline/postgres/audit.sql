-- Invariants that must hold after any fault. Each statement selects the breaches; no row means that the invariant holds.
--
-- Read-only, so it may run during a backfill. Conditions that hold only without open claims and calls in flight use %(at_rest)s.

-- name: I1
-- No request is lost: each is in one state, its receipt adds up, and its recordings are on the queue.
select 'request ' || request.id || ' is ' || request.state || ' and its receipt does not add up' as what
from measurement_jobs as request
where
    request.state in ('accepted', 'done')
    and request.source = 'historical'
    and (
        request.asked is null
        or request.asked < request.enqueued + request.skipped
        or request.asked <> (select count(*) from measurement_job_songs as asked where asked.job = request.id)
    )
union all
select 'request ' || asked.job || ' waits for ' || asked.song || ', which is not on the queue'
from measurement_job_songs as asked
inner join measurement_jobs as request on asked.job = request.id
where
    request.state in ('accepted', 'done')
    and not exists (select from songstats_backfill_queue as queue where queue.song = asked.song)
union all
-- A row that was requeued since is open for the operator who requeued it, not for the request.
select 'request ' || request.id || ' is done, but ' || queue.song || ' is ' || queue.status
from measurement_jobs as request
inner join measurement_job_songs as asked on request.id = asked.job
inner join songstats_backfill_queue as queue on asked.song = queue.song
where
    request.state = 'done'
    and (queue.status in ('pending', 'in_progress') or (queue.status = 'failed' and queue.outcome = 'transient'))
    and coalesce(queue.requeued_at, queue.created_at) < request.updated_at
union all
select 'request ' || request.id || ' is accepted although all that it asked for is settled'
from measurement_jobs as request
where
    %(at_rest)s
    and request.state = 'accepted'
    and request.source = 'historical'
    and not exists (
        select
        from measurement_job_songs as asked
        inner join songstats_backfill_queue as queue on asked.song = queue.song
        where
            asked.job = request.id
            and (queue.status in ('pending', 'in_progress') or (queue.status = 'failed' and queue.outcome = 'transient'))
    )
union all
select 'request ' || request.id || ' for current counts is ' || request.state || ', and there is no capture that answers it'
from measurement_jobs as request
where request.source = 'current' and request.state in ('accepted', 'done') and request.snapshot is null
union all
select 'request ' || request.id || ' is accepted although its capture is ' || captured.state
from measurement_jobs as request
inner join playcount_snapshots as captured on request.snapshot = captured.id
where %(at_rest)s and request.state = 'accepted' and captured.state in ('done', 'failed');

-- name: I2
-- No double claim: one lease, one owner, and no lease above the row's last one.
select 'two runs called for ' || ledger.song || ' under lease ' || ledger.lease as what
from songstats_quota_ledger as ledger
group by ledger.song, ledger.lease
having count(distinct ledger.run_id) > 1
union all
select 'hit ' || ledger.id || ' was spent under lease ' || ledger.lease || ' of ' || ledger.song || ', whose last one is ' || queue.lease
from songstats_quota_ledger as ledger
inner join songstats_backfill_queue as queue on ledger.song = queue.song
where ledger.lease > queue.lease;

-- name: I3
-- Fencing, as far as the tables show it: each stored history comes from a response to a call for that recording.
select 'a measurement of ' || found.song || ' names ' || coalesce(found.raw_ref, 'nothing') || ', which is no response to a call for it' as what
from (
    select distinct
        measurement.song,
        measurement.raw_ref
    from song_measurements as measurement
    where measurement.data_source = 'songstats'
) as found
where not exists (
    select
    from songstats_responses as response
    where response.song = found.song and 'songstats_responses/' || response.id = found.raw_ref
)
union all
select 'a captured count of ' || found.song || ' names ' || coalesce(found.raw_ref, 'nothing') || ', which is no run of the actor for its capture'
from (
    select distinct
        measurement.song,
        measurement.raw_ref,
        measurement.snapshot
    from song_measurements as measurement
    where measurement.snapshot is not null
) as found
where not exists (
    select
    from apify_runs as bought
    where bought.actor_run = found.raw_ref and bought.snapshot = found.snapshot
);

-- name: I4
-- Terminal stays terminal: no call for a recording follows its stored history.
select 'hit ' || later.id || ' was reserved for ' || later.song || ', which was stored before' as what
from songstats_quota_ledger as bought
inner join songstats_quota_ledger as later on bought.song = later.song and bought.settled_at < later.reserved_at
where bought.reason = 'stored' and bought.billable;

-- name: I5
-- A response and its settled hit commit together; so do measurements and `done`.
select 'response ' || response.id || ' is stored, but its hit ' || ledger.id || ' is not settled as one' as what
from songstats_responses as response
inner join songstats_quota_ledger as ledger on response.ledger = ledger.id
where ledger.settled_at is null or ledger.billable is not true
union all
select 'hit ' || ledger.id || ' was answered with 200, and no response is stored'
from songstats_quota_ledger as ledger
where
    ledger.billable and ledger.status_code = 200
    and not exists (select from songstats_responses as response where response.ledger = ledger.id)
union all
select queue.song || ' is done as stored, and has no measurement'
from songstats_backfill_queue as queue
where
    queue.status = 'done' and queue.outcome = 'stored'
    and not exists (
        select
        from song_measurements as measurement
        where measurement.song = queue.song and measurement.platform = 'spotify' and measurement.data_source = 'songstats'
    )
union all
-- A mapped actor run with recordings has measurements.
select 'run ' || bought.actor_run || ' of the actor brought ' || bought.recordings || ' recordings, and none is stored'
from apify_runs as bought
where
    bought.mapped_at is not null and bought.recordings > 0
    and not exists (
        select from song_measurements as measurement
        where measurement.snapshot = bought.snapshot and measurement.raw_ref = bought.actor_run
    )
union all
select 'capture ' || captured.id || ' is done, and has no measurement and no stored result'
from playcount_snapshots as captured
where
    captured.state = 'done'
    -- Unless a recent capture of the account has all of its albums.
    and not captured.album_ids <@ captured.reused_album_ids
    and not exists (select from apify_runs as bought where bought.snapshot = captured.id and bought.kept_at is not null);

-- name: I6
-- One answered hit per recording, unless an operator requeued it or a takeover had two calls in flight. Each hit has its cause.
select 'hit ' || ledger.id || ' is a second answered one for ' || ledger.song || ', and no operator requeued it' as what
from songstats_quota_ledger as ledger
inner join lateral (
    select first.settled_at
    from songstats_quota_ledger as first
    where first.song = ledger.song and first.id < ledger.id and first.billable and first.settled_at is not null
    order by first.id
    limit 1
) as answered on true
where
    ledger.billable
    and answered.settled_at < ledger.reserved_at
    and not exists (
        select
        from operator_acts as act
        where act.act = 'requeued' and act.at < ledger.reserved_at and act.detail -> 'songs' ? ledger.song
    )
union all
select 'hit ' || ledger.id || ' is settled without a cause'
from songstats_quota_ledger as ledger
where
    ledger.settled_at is not null
    and ledger.reason is null
    and not exists (
        select from songstats_unread_responses as unread
        where unread.ledger = ledger.id
    )
union all
select 'hit ' || ledger.id || ' for ' || ledger.song || ' is still open'
from songstats_quota_ledger as ledger
where %(at_rest)s and ledger.settled_at is null
union all
-- The actor is started once for each part of a capture, unless the run is known to have failed.
select 'albums of capture ' || bought.snapshot || ' were paid for twice: part ' || bought.chunk
from apify_runs as bought
where bought.kept_at is not null
group by bought.snapshot, bought.chunk
having count(*) > 1
union all
select 'a run of the actor for capture ' || bought.snapshot || ' has no known status: whether it started is unknown'
from apify_runs as bought
where %(at_rest)s and bought.status is null;

-- name: I8
-- A response that could not be parsed is stored, and its row is not done.
select queue.song || ' is malformed, and its response is not stored' as what
from songstats_backfill_queue as queue
where
    queue.outcome = 'malformed'
    and not exists (select from songstats_responses as response where response.song = queue.song);

-- name: I9
-- A 429 costs no budget.
select 'hit ' || ledger.id || ' was throttled and is counted' as what
from songstats_quota_ledger as ledger
where ledger.status_code = 429 and (ledger.billable is distinct from false or ledger.reason <> 'throttled');

-- name: I10
-- Attempts are capped, crashes included. At rest no row has an owner.
select queue.song || ' had ' || queue.attempts || ' attempts of ' || %(max_attempts)s as what
from songstats_backfill_queue as queue
where queue.attempts > %(max_attempts)s
union all
select queue.song || ' is still held by run ' || queue.claimed_by
from songstats_backfill_queue as queue
where %(at_rest)s and queue.status = 'in_progress'
union all
select 'capture ' || captured.id || ' had ' || captured.attempts || ' attempts of ' || %(max_attempts)s
from playcount_snapshots as captured
where captured.attempts > %(max_attempts)s + 1
union all
select 'capture ' || captured.id || ' is still held by run ' || captured.claimed_by
from playcount_snapshots as captured
where %(at_rest)s and captured.claimed_by is not null;

-- name: I11
-- An attempt is a claim with a call. Calls that were throttled, refused, or answered by something other than Songstats are no attempt,
-- unless the answer came after a later owner had called: then it does not change the row. A run's retries within seconds are one attempt
-- with several claims; a run that claims the row again after another run makes a second one.
select queue.song || ' counts ' || queue.attempts || ' attempts, and has calls under ' || calls.claims || ' claims' as what
from songstats_backfill_queue as queue
cross join lateral (
    select count(distinct ledger.lease) as claims
    from songstats_quota_ledger as ledger
    where
        ledger.song = queue.song
        and (
            (
                coalesce(ledger.reason not in ('throttled', 'refused key'), true)
                and not coalesce(
                    ledger.reason = 'transient'
                    and (ledger.billable is null or ledger.reconciled_at is not null)
                    and ledger.status_code is not null,
                    false
                )
            )
            or exists (
                select from songstats_quota_ledger as later
                where later.song = ledger.song and later.lease > ledger.lease and later.reserved_at < ledger.settled_at
            )
        )
) as calls
where queue.attempts > calls.claims;

-- name: I12
-- Each hit has a payer: a request of the account, or an operator's launch.
select 'hit ' || ledger.id || ' for ' || ledger.song || ' was spent without a request or an operator''s launch' as what
from songstats_quota_ledger as ledger
inner join songstats_backfill_queue as queue on ledger.song = queue.song
where ledger.job is null and not queue.operator_launched
union all
select 'hit ' || ledger.id || ' was charged to ' || ledger.account || ', which is not the account of its request'
from songstats_quota_ledger as ledger
inner join measurement_jobs as request on ledger.job = request.id
where request.account <> ledger.account;

-- name: I14
-- Storing a payload twice equals storing it once: each restatement differs from the value before it.
select repeated.song || ' has the same ' || repeated.metric || ' for ' || repeated.captured_at || ' twice' as what
from (
    select
        measurement.song,
        measurement.metric,
        measurement.captured_at,
        measurement.value = lag(measurement.value) over (
            partition by
                measurement.song, measurement.platform, measurement.metric, measurement.captured_at, measurement.data_source
            order by measurement.learnt_at
        ) as is_same
    from song_measurements as measurement
) as repeated
where repeated.is_same;

-- name: I20
-- The stored latest count of each recording is the one that its measurements give.
select
    recording.isrc || ' has ' || coalesce(latest.play_count || ' plays of ' || latest.captured_at, 'no count')
    || ' as its latest count, and its measurements give ' || coalesce(defined.play_count || ' of ' || defined.captured_at, 'none') as what
from songs as recording
left join lateral latest_count_of(recording.isrc) as defined on true
left join song_latest_counts as latest on recording.isrc = latest.song
where
    (latest.play_count, latest.captured_at, latest.data_source, latest.learnt_at)
    is distinct from (defined.play_count, defined.captured_at, defined.data_source, defined.learnt_at);

-- name: I19
-- Sandbox and live never mix: one stamp.
select 'the database has no stamp' as what
where not exists (select from deployment);

-- name: partition_expectations
-- For I13: recordings that may be materialized in Dagster, and those that must be by now.
select
    queue.song,
    queue.status = 'done'
    -- Without a grace period none must be: the reclaim may be about to report it.
    and coalesce(queue.updated_at <= clock_timestamp() - make_interval(secs => %(grace_hours)s * 3600.0), false) as is_overdue
from songstats_backfill_queue as queue
where queue.status = 'done' or queue.requeued_at is not null;
