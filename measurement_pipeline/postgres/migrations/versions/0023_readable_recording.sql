-- The recording that an account may read, by its ISRC or its Spotify track id. -- noqa: disable=RF01
create function readable_recording(account uuid, isrc text, track text)
returns table (song text, name text, artist text)
language sql stable parallel safe
begin atomic
select
    recording.isrc as song,
    recording.name,
    recording.artist
from (
    select readable_recording.isrc as song
    union
    select identifier.song
    from song_identifiers as identifier
    where
        identifier.platform = 'spotify'
        and identifier.identifier_type = 'track_id'
        and identifier.value = readable_recording.track
) as candidate
inner join songs as recording on candidate.song = recording.isrc
where (
    select true from account_songs as allowed
    where allowed.account = readable_recording.account and allowed.song = recording.isrc
    limit 1
)
order by recording.isrc
limit 1;
end;
comment on function readable_recording is 'The recording with this ISRC or Spotify track id, if the account may read it over HTTP.';
