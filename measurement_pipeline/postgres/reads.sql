-- Measurements that an account reads over HTTP. Of a restated point the newest value counts. song_latest_counts
-- has a recording's latest count, for analysts and here.
--
-- Access to a recording is checked with `limit 1`. PostgreSQL would plan exists() as a join that reads all recordings of the account
-- first (measured at 100,000 recordings: 160 ms instead of 1).

-- name: ready
select from deployment;

-- name: series
-- One row without a point if the recording has none. readable_recording searches account_songs.
select
    recording.song as isrc,
    recording.name,
    recording.artist,
    point.captured_at,
    point.value,
    point.data_source
from readable_recording(%(account)s, %(isrc)s, %(track)s) as recording
left join lateral (
    select distinct on (measurement.captured_at, measurement.data_source)
        measurement.captured_at,
        measurement.value,
        measurement.data_source
    from song_measurements as measurement
    where
        measurement.song = recording.song
        and measurement.platform = 'spotify'
        and measurement.metric = 'platform_displayed_play_count'
        and measurement.captured_at >= coalesce(%(first)s::date::timestamp at time zone 'UTC', '-infinity')
        and measurement.captured_at < coalesce((%(last)s::date + 1)::timestamp at time zone 'UTC', 'infinity')
    order by measurement.captured_at asc, measurement.data_source asc, measurement.learnt_at desc
) as point on true
order by point.captured_at, point.data_source;

-- name: run_rate
-- One row without a rate if nothing was measured.
select
    recording.song as isrc,
    recording.name,
    recording.artist,
    rate.days_covered,
    rate.plays,
    rate.plays_a_year,
    rate.why_none,
    rate.is_interpolated,
    rate.is_source_changed,
    rate.last_captured_at,
    rate.last_play_count,
    rate.last_data_source,
    rate.first_captured_at,
    rate.first_play_count,
    rate.first_data_source,
    rate.next_captured_at,
    rate.next_play_count,
    rate.next_data_source
from readable_recording(%(account)s, %(isrc)s, %(track)s) as recording
left join lateral analytics.run_rates_over(recording.song, array[%(window_days)s]::int[]) as rate on true;

-- name: latest_of_album
select
    song.isrc,
    song.name,
    song.artist,
    latest.captured_at,
    latest.play_count as value,
    latest.data_source
from song_identifiers as identifier
inner join songs as song on identifier.song = song.isrc
left join latest_counts as latest on song.isrc = latest.song
where
    identifier.platform = 'spotify'
    and identifier.identifier_type = 'album_id'
    and identifier.value = %(album)s
    and (
        select true from account_songs as allowed
        where allowed.account = %(account)s and allowed.song = song.isrc
        limit 1
    )
order by song.isrc;

-- name: latest_of_catalog
select
    song.isrc,
    song.name,
    song.artist,
    latest.captured_at,
    latest.play_count as value,
    latest.data_source
from (
    select listed.song
    from catalog_songs as listed
    inner join catalogs as catalog on listed.catalog = catalog.id
    where
        catalog.id = %(catalog)s
        and catalog.account = %(account)s
        -- Not `is null or`: a prepared statement would read all recordings before the page.
        and listed.song > coalesce(%(after)s::text, '')
    order by listed.song
    limit %(limit)s
) as page
inner join songs as song on page.song = song.isrc
left join song_latest_counts as latest on song.isrc = latest.song
order by song.isrc;

-- name: totals_of_catalog
-- Same rule as analytics.catalog_totals: imported counts are in no total.
select
    count(*) as recordings,
    count(latest.song) as measured,
    coalesce(sum(latest.play_count), 0)::text as plays,
    min(latest.captured_at) as oldest_captured_at,
    max(latest.captured_at) as newest_captured_at,
    count(*) filter (where (latest.captured_at at time zone 'UTC')::date < (clock_timestamp() at time zone 'UTC')::date - 35) as ended
from catalog_songs as listed
inner join catalogs as catalog on listed.catalog = catalog.id
left join song_latest_counts as latest on listed.song = latest.song and latest.data_source <> 'import'
where catalog.id = %(catalog)s and catalog.account = %(account)s;
