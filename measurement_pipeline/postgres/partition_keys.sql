-- Partition keys of captures and catalogues.

-- name: captures
select
    capture.id,
    capture.partition_key,
    capture.schedule = 'monthly' as monthly,
    case when capture.catalog is null then capture.album_count else 1 end as albums,
    to_char(capture.created_at at time zone 'UTC', 'YYYY-MM-DD') as day,
    coalesce(catalog.name, album.title, capture.album_ids[1]) as what
from playcount_snapshots as capture
left join catalogs as catalog on capture.catalog = catalog.id
left join lateral (
    select min(song.album) as title
    from song_identifiers as identifier
    inner join songs as song on identifier.song = song.isrc
    where
        identifier.platform = 'spotify'
        and identifier.identifier_type = 'album_id'
        and identifier.value = capture.album_ids[1]
) as album on true
where capture.id = any(%(ids)s::uuid[]);

-- name: catalogs
select
    catalog.id,
    catalog.partition_key,
    catalog.name,
    catalog.account,
    account.name as account_name
from catalogs as catalog
inner join accounts as account on catalog.account = account.id
where catalog.id = any(%(ids)s::uuid[]);

-- name: name_capture
-- The first key stays. If another capture has the key already, the id is the key.
update playcount_snapshots
set partition_key = case
    when exists (select from playcount_snapshots as other where other.partition_key = %(key)s) then id::text
    else %(key)s
end
where id = %(id)s and partition_key is null;

-- name: name_catalog
update catalogs
set partition_key = case
    when exists (select from catalogs as other where other.partition_key = %(key)s) then id::text
    else %(key)s
end
where id = %(id)s and partition_key is null;

-- name: capture
select id from playcount_snapshots
where partition_key = %(key)s;

-- name: catalog
select id from catalogs
where partition_key = %(key)s;

-- name: failed_captures
select partition_key from playcount_snapshots
where partition_key = any(%(keys)s) and state = 'failed';
