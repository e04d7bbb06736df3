-- Daily plays that an artist exported. The points are in song_measurements, with a metric and a source of their own.
create table history_imports (
    id bigint generated always as identity primary key,
    song text not null references songs (isrc),
    format text not null,
    file_name text not null,
    sha256 text not null,
    body bytea not null,
    imported_by text not null,
    imported_at timestamptz not null default now(),
    days integer not null,
    first_day date not null,
    last_day date not null,
    plays bigint not null
);
create index history_imports_song on history_imports (song);
