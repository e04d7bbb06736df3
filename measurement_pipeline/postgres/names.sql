-- Accounts and catalogues by name or id.

-- name: accounts
select id
from accounts
where name = %(name)s
order by id;

-- name: account_is_known
-- An account of a queued request has no row yet.
select
    exists (select from accounts where id = %(account)s)
    or exists (select from measurement_jobs where account = %(account)s) as is_known;

-- name: catalogs
select
    id,
    account,
    name
from catalogs
where
    (id = %(id)s::uuid or name = %(name)s)
    and (%(account)s::uuid is null or account = %(account)s)
order by account, id;
