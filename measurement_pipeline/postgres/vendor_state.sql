-- Throttle pauses of the capture vendors. A pause holds for the whole deployment.

-- name: pause
-- A pause never becomes shorter.
insert into vendor_state (vendor, paused_until, pause_reason)
values (%(vendor)s, clock_timestamp() + make_interval(secs => %(seconds)s), %(reason)s)
on conflict (vendor) do update set
    paused_until = greatest(excluded.paused_until, vendor_state.paused_until),
    pause_reason = excluded.pause_reason;

-- name: resume
-- Captures that waited for a vendor become due.
with resumed as (
    update vendor_state
    set paused_until = clock_timestamp()
    where vendor = any(%(vendors)s) and paused_until > clock_timestamp()
    returning vendor
),

open_again as (
    update playcount_snapshots
    set not_before = null
    where state in ('queued', 'running') and claimed_by is null and exists (select from resumed)
)

select vendor
from resumed
order by vendor;

-- name: get_pause
select
    paused_until,
    pause_reason
from vendor_state
where vendor = %(vendor)s and paused_until > clock_timestamp();
