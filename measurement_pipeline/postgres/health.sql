-- Figures for the health checks. Read-only; each reads open rows or the last day, never all measurements.

-- name: backlog
-- Open recordings that are still wanted. Rows in progress count too: a run may hold them and settle nothing.
with waiting as (
    select
        coalesce(queue.requeued_at, queue.created_at) as waiting_since,
        coalesce(queue.not_before <= clock_timestamp(), true) as is_ready,
        queue.not_before,
        queue.last_error,
        queue.status = 'in_progress' as is_in_progress,
        exists(select from songstats_payers(%(operators_account)s) as payer where payer.song = queue.song) as is_payable,
        exists(
            select from active_purchase_pauses as pause
            where
                (queue.operator_launched and pause.account = %(operators_account)s)
                or pause.account in (select wanted.account from songstats_wanted as wanted where wanted.song = queue.song)
        ) as is_of_paused_account
    from songstats_open_rows as queue
    where queue.is_wanted
)

select
    count(*) as waiting,
    count(*) filter (where is_payable) as payable,
    count(*) filter (where is_payable and is_ready) as ready,
    count(*) filter (where is_in_progress) as in_progress,
    count(*) filter (where is_of_paused_account and not is_payable) as paused,
    min(waiting_since) as oldest_waiting,
    min(not_before) filter (where is_payable and not is_ready) as next_retry_at,
    (array_agg(last_error order by not_before desc) filter (where is_payable and not is_ready and last_error is not null))[1] as last_error,
    (
        select ledger.settled_at
        from songstats_quota_ledger as ledger
        where
            ledger.reason in ('stored', 'no history', 'rejected', 'malformed')
            -- A future date was written before the clock was set back, and would hide a stall.
            and ledger.settled_at <= clock_timestamp()
        order by ledger.settled_at desc
        limit 1
    ) as last_settled,
    clock_timestamp() as now
from waiting;

-- name: unpaid_accounts
-- Accounts that must add a card: they want open recordings and have no allowed payment decision.
select distinct wanted.account
from songstats_wanted as wanted
inner join songstats_backfill_queue as queue on wanted.song = queue.song
left join payment_decisions as decision on wanted.account = decision.account
where decision.verdict is distinct from 'allowed' and queue.status in ('pending', 'in_progress')
order by wanted.account
limit 5;

-- name: answering
-- Queued requests. A request with a future not_before set by its client does not count as waiting.
select
    count(*) as waiting,
    min(created_at) as oldest,
    (array_agg(error order by created_at) filter (where error is not null))[1] as error,
    clock_timestamp() as now
from measurement_jobs
where state = 'queued' and (not_before is null or not_before <= clock_timestamp() or error is not null);

-- name: capturing
select
    count(*) as waiting,
    min(created_at) as oldest,
    (array_agg(error order by created_at) filter (where error is not null))[1] as error,
    clock_timestamp() as now
from playcount_snapshots
where state in ('queued', 'running');

-- name: given_up
select
    count(*) filter (where outcome = 'exhausted') as exhausted,
    (array_agg(song order by rank_score desc) filter (where outcome = 'exhausted'))[:6] as exhausted_songs,
    count(*) filter (where outcome = 'malformed') as malformed,
    (array_agg(song order by rank_score desc) filter (where outcome = 'malformed'))[:6] as malformed_songs,
    count(*) filter (where suspect) as suspect,
    (array_agg(song order by rank_score desc) filter (where suspect))[:6] as suspect_songs
from songstats_backfill_queue
where outcome in ('exhausted', 'malformed') or suspect;

-- name: rows_against_measurements
-- A row that is done as stored has measurements; a bought history has a row that is done.
select queue.song || ' is done as stored, and has no measurement' as what
from songstats_backfill_queue as queue
where
    queue.status = 'done' and queue.outcome = 'stored'
    and not exists (
        select
        from song_measurements as measurement
        where measurement.song = queue.song and measurement.platform = 'spotify' and measurement.data_source = 'songstats'
    )
union all
select song.isrc || ' has a history, and its row is ' || coalesce(queue.status, 'missing')
from songs as song
left join songstats_backfill_queue as queue on song.isrc = queue.song
where
    queue.status is distinct from 'done'
    and exists (
        select
        from song_measurements as measurement
        where measurement.song = song.isrc and measurement.platform = 'spotify' and measurement.data_source = 'songstats'
    )
order by what;

-- name: recently_stored
select count(distinct song) as stored
from songstats_quota_ledger
where reason = 'stored' and settled_at > clock_timestamp() - interval '1 day';

-- name: latest_series
-- Series of the recordings stored in the last day, limited in number: new purchases, not everything that is stored.
with bought as (
    select
        ledger.song,
        max(ledger.settled_at) as bought_at
    from (
        select
            hit.song,
            hit.settled_at
        from songstats_quota_ledger as hit
        where hit.reason = 'stored' and hit.settled_at > clock_timestamp() - interval '1 day'
        order by hit.settled_at desc
        limit %(most)s
    ) as ledger
    group by ledger.song
)

select
    bought.song,
    series.latest_count,
    series.halved_on,
    -- Histories in a sandbox are invented and end on any day.
    case
        when (select deployment.kind from deployment) = 'live'
            then (bought.bought_at at time zone 'UTC')::date - (series.last_day at time zone 'UTC')::date
    end as days_behind
from bought
cross join lateral (
    select
        max(figure.captured_at) as last_day,
        (array_agg(figure.value order by figure.captured_at desc))[1] as latest_count,
        (min(figure.captured_at) filter (where figure.value < figure.before / 2.0) at time zone 'UTC')::date as halved_on
    from (
        select
            believed.captured_at,
            believed.value,
            lag(believed.value) over (order by believed.captured_at) as before
        from (
            -- The newest restatement of a day counts.
            select distinct on (measurement.captured_at)
                measurement.captured_at,
                measurement.value
            from song_measurements as measurement
            where
                measurement.song = bought.song
                and measurement.platform = 'spotify'
                and measurement.metric = %(play_count)s
                and measurement.data_source = 'songstats'
            order by measurement.captured_at asc, measurement.learnt_at desc
        ) as believed
    ) as figure
) as series
where series.last_day is not null
order by bought.song;
