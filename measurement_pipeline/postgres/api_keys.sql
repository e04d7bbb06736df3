-- Keys of the HTTP API.

-- name: add
insert into api_keys (account, name, prefix, digest, expires_at)
values (%(account)s, %(name)s, %(prefix)s, %(digest)s, %(expires_at)s)
on conflict (prefix) do nothing
returning id;

-- name: find
select
    id,
    account,
    digest,
    case
        when revoked_at is not null then 'revoked'
        when expires_at <= clock_timestamp() then 'expired'
    end as refused_because,
    coalesce(last_used_at < clock_timestamp() - interval '1 minute', true) as is_use_unrecorded
from api_keys
where prefix = %(prefix)s;

-- name: used
-- Once a minute, because a busy client would otherwise update its row with every request.
update api_keys
set last_used_at = clock_timestamp()
where id = %(key)s and (last_used_at is null or last_used_at < clock_timestamp() - interval '1 minute');

-- name: listed
select
    prefix,
    account,
    name,
    created_at,
    expires_at,
    last_used_at,
    revoked_at
from api_keys
where %(account)s::uuid is null or account = %(account)s
order by created_at, prefix;

-- name: revoke
update api_keys
set revoked_at = clock_timestamp()
where prefix = %(prefix)s and revoked_at is null
returning id;
