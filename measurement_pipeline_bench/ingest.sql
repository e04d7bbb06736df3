-- The comparison table of the ingest benchmark, and its size.

-- name: widen
-- The usual shape of such tables: a surrogate key, the natural key as a constraint, and an index by time.
alter table song_measurements drop constraint song_measurements_pkey;
alter table song_measurements add column id uuid primary key default gen_random_uuid();
alter table song_measurements
add constraint song_measurements_point unique (song, platform, metric, captured_at, data_source, learnt_at);
create index song_measurements_captured_at on song_measurements (metric, captured_at);

-- name: size
select
    count(*) as row_count,
    pg_total_relation_size('song_measurements') as bytes
from song_measurements;
