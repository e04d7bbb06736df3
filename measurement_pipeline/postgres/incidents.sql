-- Incidents: seen, over, told. One row an incident; the index incidents_open holds that there is one open row a key.

-- name: end_unseen
update incidents
set ended_at = last_at
where
    ended_at is null
    and last_at < clock_timestamp() - make_interval(days => %(days)s);

-- name: end_of_breaker
-- Over with the breaker's closing, so that it is told when it opens anew. Dagster may show a failure after that: such a one is over
-- at the latest with the next opening.
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
-- A check that passes ends its incidents, and a run that succeeds those of its job. A run over stored recordings succeeds while the
-- breaker is open: that incident ends when the breaker is closed.
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
-- Read alone, so what is over and was not ended yet is left out here: as `end_unseen` and `end_of_breaker` have it.
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

-- name: next_untold
-- Skip locked: another is telling that one just now. An old one is news to nobody: there was no webhook then.
select
    id,
    what,
    times,
    opened_at,
    ended_at
from incidents
where told_at is null and id > %(after)s and last_at > clock_timestamp() - interval '7 days'
order by id
limit 1
for update skip locked;

-- name: told
update incidents
set told_at = clock_timestamp()
where id = %(id)s;
