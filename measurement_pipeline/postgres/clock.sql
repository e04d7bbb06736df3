-- Times later than now that no code writes: the database's clock was set back after they were written.

-- name: future_times
-- One minute of tolerance, because clocks are corrected by less than that at any time.
select
    dated.what,
    count(*) as rows,
    max(dated.at) as latest
from (
    select
        'vendor_state.next_call_at' as what,
        state.next_call_at as at,
        make_interval(secs => %(furthest_booking)s) as allowed
    from vendor_state as state
    union all
    select
        'vendor_state.streak_since' as what,
        state.streak_since as at,
        interval '0' as allowed
    from vendor_state as state
    union all
    select
        'songstats_backfill_queue.heartbeat_at' as what,
        queue.heartbeat_at as at,
        interval '0' as allowed
    from songstats_backfill_queue as queue
    where queue.status = 'in_progress'
    union all
    select
        'songstats_backfill_queue.not_before' as what,
        queue.not_before as at,
        make_interval(secs => %(longest_backoff)s) as allowed
    from songstats_backfill_queue as queue
    where queue.status = 'pending'
    union all
    select
        'run_heartbeats.beat_at' as what,
        run.beat_at as at,
        interval '0' as allowed
    from run_heartbeats as run
    union all
    select
        'payment_decisions.checked_at' as what,
        decision.checked_at as at,
        interval '0' as allowed
    from payment_decisions as decision
    union all
    select
        'songstats_quota_ledger.reserved_at' as what,
        ledger.reserved_at as at,
        interval '0' as allowed
    from songstats_quota_ledger as ledger
    where ledger.billable is distinct from false and ledger.reserved_at > clock_timestamp()
) as dated
where dated.at > clock_timestamp() + dated.allowed + interval '1 minute'
group by dated.what
order by dated.what;

-- name: correct
-- The times that would delay work. A heartbeat is set to now: a live owner renews it, and a dead one exceeds the claim timeout.
with heartbeats as (
    update run_heartbeats
    set beat_at = clock_timestamp()
    where beat_at > clock_timestamp()
    returning run_id
),

held as (
    select queue.song
    from songstats_backfill_queue as queue
    where
        (queue.status = 'in_progress' and queue.heartbeat_at > clock_timestamp())
        or (
            queue.status = 'pending'
            and queue.not_before > clock_timestamp() + make_interval(secs => %(longest_backoff)s)
        )
    order by queue.song
    for update
),

claims as (
    update songstats_backfill_queue as queue
    set
        heartbeat_at = least(queue.heartbeat_at, clock_timestamp()),
        not_before = least(queue.not_before, clock_timestamp() + make_interval(secs => %(longest_backoff)s))
    from held
    where queue.song = held.song
    returning queue.song
),

streak as (
    update vendor_state
    set streak_since = clock_timestamp()
    where streak_since > clock_timestamp()
    returning vendor
)

select
    (select count(*) from heartbeats)
    + (select count(*) from claims)
    + (select count(*) from streak) as corrected;
