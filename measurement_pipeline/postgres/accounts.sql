-- Accounts, what Stripe last said of them, and what a person overrode.

-- name: ensure
insert into accounts (id, name)
values (%(account)s, %(name)s)
on conflict (id) do update set name = coalesce(accounts.name, excluded.name);

-- name: fresh
select
    account,
    checked_at
from payment_decisions
where
    account = any(%(accounts)s)
    and verdict = 'allowed'
    and checked_at > clock_timestamp() - make_interval(secs => %(allowed_serves)s)
    -- One dated ahead is of before the clock was set back: of unknown age, and so not fresh.
    and checked_at <= clock_timestamp() + interval '1 minute';

-- name: today
select (clock_timestamp() at time zone 'UTC')::date as today;

-- name: open_checkout
select
    checkout_url,
    checkout_expires_at
from payment_decisions
where
    account = %(account)s
    and checkout_url is not null
    and checkout_expires_at > clock_timestamp() + make_interval(secs => %(margin)s);

-- name: customer
select stripe_customer_id
from accounts
where id = %(account)s;

-- name: set_customer
update accounts
set stripe_customer_id = %(customer)s
where id = %(account)s and stripe_customer_id is distinct from %(customer)s;

-- name: record
insert into payment_decisions (account, verdict, checked_at, checkout_url, checkout_expires_at)
values (%(account)s, %(verdict)s, clock_timestamp(), %(checkout_url)s, %(checkout_expires_at)s)
on conflict (account) do update set
    verdict = excluded.verdict,
    checked_at = excluded.checked_at,
    -- A denial without a link of its own leaves the open one; an allowed account needs none.
    checkout_url = case
        when excluded.verdict = 'allowed' then null else coalesce(excluded.checkout_url, payment_decisions.checkout_url)
    end,
    checkout_expires_at = case
        when excluded.verdict = 'allowed' then null
        else coalesce(excluded.checkout_expires_at, payment_decisions.checkout_expires_at)
    end
-- The later answer stays, unless it is dated ahead: then it is of before the clock was set back.
where
    excluded.checked_at >= payment_decisions.checked_at
    or payment_decisions.checked_at > clock_timestamp() + interval '1 minute';

-- name: act
insert into operator_acts (actor, act, detail)
values (%(actor)s, %(act)s, %(detail)s);

-- name: forget_checkouts
-- The doubles that made these pages may have moved to another port.
update payment_decisions
set
    checkout_url = null,
    checkout_expires_at = null
where checkout_url is not null;
