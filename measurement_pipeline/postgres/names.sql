-- Accounts and catalogues by what a person calls them.

-- name: accounts
select id
from accounts
where name = %(name)s
order by id;

-- name: catalogs
-- By id or by name; with an account, among its own.
select
    id,
    account,
    name
from catalogs
where
    (id = %(id)s::uuid or name = %(name)s)
    and (%(account)s::uuid is null or account = %(account)s)
order by account, id;
