-- Accounts, their payment decisions, and operator acts.

-- name: ensure
insert into accounts (id, name)
values (%(account)s, %(name)s)
on conflict (id) do update set name = coalesce(accounts.name, excluded.name);

-- name: payment_state
select
    account.id as account,
    decision.checked_at,
    decision.checkout_url,
    decision.checkout_expires_at,
    accounts.stripe_customer_id as customer,
    (clock_timestamp() at time zone 'UTC')::date as today,
    coalesce(
        decision.verdict = 'allowed'
        and decision.checked_at > clock_timestamp() - make_interval(secs => %(allowed_serves)s)
        -- A decision dated ahead was stored before the clock was set back: its age is unknown, so it is not fresh.
        and decision.checked_at <= clock_timestamp() + interval '1 minute',
        false
    ) as is_fresh,
    coalesce(
        decision.checkout_url is not null
        and decision.checkout_expires_at > clock_timestamp() + make_interval(secs => %(checkout_margin)s),
        false
    ) as is_checkout_open
from unnest(%(accounts)s::uuid[]) as account (id)
left join payment_decisions as decision on account.id = decision.account
left join accounts on account.id = accounts.id;

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
    -- A denial without a link keeps the open one; an allowed account needs none.
    checkout_url = case
        when excluded.verdict = 'allowed' then null else coalesce(excluded.checkout_url, payment_decisions.checkout_url)
    end,
    checkout_expires_at = case
        when excluded.verdict = 'allowed' then null
        else coalesce(excluded.checkout_expires_at, payment_decisions.checkout_expires_at)
    end
-- The later decision stays, unless it has a future date: that was written before the clock was set back.
where
    excluded.checked_at >= payment_decisions.checked_at
    or payment_decisions.checked_at > clock_timestamp() + interval '1 minute';

-- name: act
insert into operator_acts (actor, act, detail)
values (%(actor)s, %(act)s, %(detail)s);

-- name: forget_checkouts
-- The doubles that created these pages may use another port now.
update payment_decisions
set
    checkout_url = null,
    checkout_expires_at = null
where checkout_url is not null;
