-- The latest count of each recording, in a table that triggers keep up to date. -- noqa: disable=RF01

create table song_latest_counts (
    song text primary key,
    play_count bigint not null,
    captured_at timestamptz not null,
    data_source text not null,
    learnt_at timestamptz not null
)
-- Space for a new version of each row in its own block: a capture replaces all of them.
with (fillfactor = 85);

-- The definition. The table holds its result for each recording.
create function latest_count_of(recording text)
returns table (play_count bigint, captured_at timestamptz, data_source text, learnt_at timestamptz)
language sql stable parallel safe
begin atomic
select
    coalesce(measured.play_count, imported.value) as play_count,
    coalesce(measured.captured_at, imported.captured_at) as captured_at,
    coalesce(measured.data_source, imported.data_source) as data_source,
    coalesce(measured.learnt_at, imported.learnt_at) as learnt_at
from (select latest_count_of.recording as song) as counted
left join lateral analytics.latest_count_before(counted.song, 'infinity') as measured on true
left join lateral (
    select
        measurement.value,
        measurement.captured_at,
        measurement.data_source,
        measurement.learnt_at
    from song_measurements as measurement
    where
        measured.captured_at is null
        and measurement.song = counted.song
        and measurement.platform = 'spotify'
        and measurement.metric = 'platform_displayed_play_count'
        and measurement.data_source = 'import'
    order by measurement.captured_at desc, measurement.learnt_at desc
    limit 1
) as imported on true
where measured.captured_at is not null or imported.captured_at is not null;
end;
comment on function latest_count_of is 'The latest count of a recording, from its measurements: the newest measured one, or the newest imported one if none was measured.';

-- Triggers, and not a part of each statement that stores measurements: no writer can forget them, not even a person with psql.
create function keep_latest_counts() returns trigger
language plpgsql
-- A writer needs no right on the table, so that nothing else can change it.
security definer
-- A writer's session may have another one, as in a restore.
set search_path from current
as $$
begin
    if tg_op = 'TRUNCATE' then
        delete from song_latest_counts;
        return null;
    end if;
    if tg_op <> 'INSERT' then
        -- What was the latest may be gone. The next statement sees all that was committed until this one got its locks.
        perform from song_latest_counts as known
        where known.song in (select counted.song from changed as counted where counted.metric = 'platform_displayed_play_count')
        order by known.song
        for update;
        delete from song_latest_counts as known
        where known.song in (select counted.song from changed as counted where counted.metric = 'platform_displayed_play_count');
    end if;
    insert into song_latest_counts as known (song, play_count, captured_at, data_source, learnt_at)
    select
        counted.song,
        latest.play_count,
        latest.captured_at,
        latest.data_source,
        latest.learnt_at
    from (
        select distinct changed.song
        from changed
        where changed.metric = 'platform_displayed_play_count'
    ) as counted
    cross join lateral latest_count_of(counted.song) as latest
    -- Writers of several recordings lock them in one order.
    order by counted.song
    on conflict (song) do update set
        play_count = excluded.play_count,
        captured_at = excluded.captured_at,
        data_source = excluded.data_source,
        learnt_at = excluded.learnt_at
    -- Another writer may have stored a later count that this statement did not see. The order is that of the definition.
    where
        (excluded.data_source <> 'import', excluded.captured_at) > (known.data_source <> 'import', known.captured_at)
        or (
            (excluded.data_source <> 'import', excluded.captured_at) = (known.data_source <> 'import', known.captured_at)
            and (
                excluded.data_source < known.data_source
                or (excluded.data_source = known.data_source and excluded.learnt_at > known.learnt_at)
            )
        );
    return null;
end
$$;
comment on function keep_latest_counts is 'Trigger function of song_measurements: updates song_latest_counts in the writer''s transaction.';

-- First, so that no measurement is stored between the two.
create trigger keep_latest_counts_inserted
after insert on song_measurements
referencing new table as changed
for each statement execute function keep_latest_counts();

create trigger keep_latest_counts_deleted
after delete on song_measurements
referencing old table as changed
for each statement execute function keep_latest_counts();

create trigger keep_latest_counts_updated_from
after update on song_measurements
referencing old table as changed
for each statement execute function keep_latest_counts();

create trigger keep_latest_counts_updated_to
after update on song_measurements
referencing new table as changed
for each statement execute function keep_latest_counts();

create trigger keep_latest_counts_truncated
after truncate on song_measurements
for each statement execute function keep_latest_counts();

insert into song_latest_counts (song, play_count, captured_at, data_source, learnt_at)
select
    recording.isrc,
    latest.play_count,
    latest.captured_at,
    latest.data_source,
    latest.learnt_at
from songs as recording
cross join lateral latest_count_of(recording.isrc) as latest
order by recording.isrc;

create or replace view latest_counts as
select
    recording.isrc as song,
    recording.name,
    recording.artist,
    recording.album,
    latest.play_count,
    latest.captured_at,
    latest.data_source,
    latest.learnt_at
from song_latest_counts as latest
inner join songs as recording on latest.song = recording.isrc;
