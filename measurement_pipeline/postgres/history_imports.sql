-- Imports of histories that artists export. Their points never mix with cumulative counts: metric and source are their own.

-- name: insert
insert into history_imports (song, format, file_name, sha256, body, imported_by, days, first_day, last_day, plays)
values (
    %(song)s, %(format)s, %(file_name)s, %(sha256)s, %(body)s, %(actor)s, %(days)s, %(first_day)s, %(last_day)s, %(plays)s
)
returning id;

-- name: store
-- Only points that differ from the newest known value of the day, so that the same file twice adds nothing.
with point as (
    select
        given.day::timestamp at time zone 'UTC' as captured_at,
        given.plays
    from unnest(%(day_list)s::date[], %(play_list)s::bigint[]) as given (day, plays)
),

newest as (
    select distinct on (measurement.captured_at)
        measurement.captured_at,
        measurement.value,
        measurement.learnt_at
    from song_measurements as measurement
    where
        measurement.song = %(song)s
        and measurement.platform = 'spotify'
        and measurement.metric = %(metric)s
        and measurement.data_source = %(data_source)s
    order by measurement.captured_at asc, measurement.learnt_at desc
)

insert into song_measurements (song, platform, metric, captured_at, data_source, value, raw_ref, learnt_at)
select
    %(song)s,
    'spotify',
    %(metric)s,
    point.captured_at,
    %(data_source)s,
    point.plays,
    %(raw_ref)s,
    -- Later than the value that it restates, even if the clock was set back in between.
    greatest(now(), newest.learnt_at + interval '1 microsecond')
from point
left join newest on point.captured_at = newest.captured_at
where newest.value is distinct from point.plays
order by point.captured_at;

-- name: today
select (clock_timestamp() at time zone 'UTC')::date as today;

-- name: list
-- Each import beside the history that was bought, if there is one.
select
    imported.id,
    imported.song,
    song.name,
    song.artist,
    imported.format,
    imported.file_name,
    imported.sha256,
    imported.imported_by,
    imported.imported_at,
    imported.days,
    imported.first_day,
    imported.last_day,
    imported.plays,
    bought.play_count as bought_plays_in_period
from history_imports as imported
inner join songs as song on imported.song = song.isrc
left join lateral (
    -- What the cumulative counts of Songstats say of the same days.
    select (array_agg(figure.value order by figure.captured_at desc))[1] - (array_agg(figure.value order by figure.captured_at asc))[1] as play_count
    from song_measurements as figure
    where
        figure.song = imported.song
        and figure.platform = 'spotify'
        and figure.metric = 'platform_displayed_play_count'
        and figure.data_source = 'songstats'
        and figure.captured_at >= (imported.first_day - 1)::timestamp at time zone 'UTC'
        and figure.captured_at <= imported.last_day::timestamp at time zone 'UTC'
    having count(*) > 1
) as bought on true
where %(song)s::text is null or imported.song = %(song)s
order by imported.imported_at desc, imported.id desc
limit %(limit)s;

-- name: count_imported
-- Of these recordings, those that have an imported history and no bought one.
select count(*) as imported
from unnest(%(songs)s::text[]) as wanted (song)
where
    exists (select from history_imports as known where known.song = wanted.song)
    and not exists (
        select from song_measurements as measurement
        where
            measurement.song = wanted.song
            and measurement.platform = 'spotify'
            and measurement.metric = 'platform_displayed_play_count'
            and measurement.data_source = 'songstats'
    );
