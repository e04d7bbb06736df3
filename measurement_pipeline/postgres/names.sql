-- Accounts and catalogues by what a person calls them.

-- name: accounts
select id
from accounts
where name = %(name)s
order by id;

-- name: account_is_known
-- Known here, or of one that has asked and was not taken in yet.
select
    exists (select from accounts where id = %(account)s)
    or exists (select from measurement_jobs where account = %(account)s) as is_known;

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
