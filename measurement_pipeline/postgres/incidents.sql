-- Incidents: one row each. The index incidents_open allows one open row per key.

-- name: end_unseen
update incidents
set ended_at = last_at
where
    ended_at is null
    and last_at < clock_timestamp() - make_interval(days => %(days)s);

-- name: end_of_breaker
-- A breaker incident ends when the breaker closes, so that the next opening is posted again. Dagster may report a failure after that;
-- its incident ends at the next opening at the latest.
update incidents as incident
set ended_at = greatest(incident.last_at, vendor.streak_since)
from vendor_state as vendor
where
    incident.ended_at is null
    and strpos(incident.key, %(opened)s) > 0
    and vendor.vendor = 'songstats'
    and incident.last_at < greatest(vendor.opened_at, vendor.streak_since);

-- name: reopen
update incidents
set ended_at = null
where
    id = (
        select id
        from incidents
        where key = %(key)s and ended_at > clock_timestamp() - make_interval(hours => %(hours)s)
        order by id desc
        limit 1
    )
    and not exists (select from incidents where key = %(key)s and ended_at is null);

-- name: see
insert into incidents (key, what)
values (%(key)s, %(what)s)
on conflict (key) where ended_at is null do update set
times = incidents.times + 1,
last_at = clock_timestamp()
returning times;

-- name: end_of
-- A passing check ends its incidents, a successful run those of its job. A run over stored recordings succeeds while the breaker is
-- open, so a breaker incident ends only when the breaker closes.
update incidents
set ended_at = clock_timestamp()
where
    ended_at is null
    and starts_with(key, %(source)s)
    and not (
        strpos(key, %(opened)s) > 0
        and exists (select from vendor_state as vendor where vendor.vendor = 'songstats' and vendor.breaker = 'open')
    );

-- name: open
-- Read-only, so the conditions of `end_unseen` and `end_of_breaker` are repeated to leave out expired incidents.
select
    incident.id,
    incident.key,
    incident.what,
    incident.times,
    incident.opened_at,
    incident.last_at,
    incident.told_at
from incidents as incident
where
    incident.ended_at is null
    and incident.last_at >= clock_timestamp() - make_interval(days => %(days)s)
    and not exists (
        select from vendor_state as vendor
        where
            strpos(incident.key, %(opened)s) > 0
            and vendor.vendor = 'songstats'
            and incident.last_at < greatest(vendor.opened_at, vendor.streak_since)
    )
order by incident.opened_at, incident.id;

-- name: next_unposted
-- Old incidents are not posted: no webhook was configured at that time.
select id
from incidents
where told_at is null and id > %(after)s and last_at > clock_timestamp() - interval '7 days'
order by id
limit 1;

-- name: claim_posting
-- An advisory lock until the end of the transaction, and no row lock: `record` must not wait for the webhook.
select pg_try_advisory_xact_lock(hashtextextended('incidents', %(id)s)) as is_claimed;

-- name: unposted
-- Read after the claim in a statement of its own: another process may have posted it before.
select
    id,
    what,
    times,
    opened_at,
    ended_at
from incidents
where id = %(id)s and told_at is null;

-- name: mark_posted
update incidents
set told_at = clock_timestamp()
where id = %(id)s;
