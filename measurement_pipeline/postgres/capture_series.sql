-- Monthly series of captures. A series is identified by its account and its albums.

-- name: due
-- Series whose latest capture of the same albums is `every` days old, requested in any way. A missed period is not caught
-- up. The age is compared in calendar days, because a tick that comes a few seconds early would otherwise delay the series by a day.
-- An open capture blocks the next one. A failed capture (500) is repeated after a day. A capture of unknown albums (404) counts as
-- a capture: those albums do not appear the next day.
select
    series.id,
    series.account,
    series.catalog,
    series.album_ids,
    series.isrcs,
    series.platforms
from playcount_series as series
where
    series.stopped_at is null
    and series.id = coalesce(%(series)s::uuid, series.id)
    and not exists (
        select from playcount_snapshots as made
        where
            made.account = series.account
            and made.albums_digest = series.albums_digest
            and (
                made.state in ('queued', 'running')
                or (made.created_at at time zone 'UTC')::date
                > (clock_timestamp() at time zone 'UTC')::date
                - case when made.state = 'failed' and made.status_code = 500 then 1 else %(every)s end
            )
    )
order by series.created_at, series.id;

-- name: list
select
    series.id,
    series.account,
    series.catalog,
    cardinality(series.album_ids) as albums,
    series.created_at,
    series.stopped_at,
    last.created_at as last_captured_at,
    last.state as last_state
from playcount_series as series
left join lateral (
    select
        made.created_at,
        made.state
    from playcount_snapshots as made
    where made.account = series.account and made.albums_digest = series.albums_digest
    order by made.created_at desc
    limit 1
) as last on true
where %(account)s::uuid is null or series.account = %(account)s
order by series.created_at, series.id;

-- name: stop
update playcount_series
set stopped_at = clock_timestamp()
where id = %(series)s and stopped_at is null
returning id;
