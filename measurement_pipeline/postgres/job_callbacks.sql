-- The outbox of callbacks. The trigger of measurement_jobs inserts the rows.

-- name: due_count
select count(*) as due
from job_callbacks
where delivered_at is null and abandoned_at is null and next_attempt_at <= clock_timestamp();

-- name: take
-- An attempt is counted before it is made. If its process is killed, the callback is due again after the lease.
with due as (
    select callback.id
    from job_callbacks as callback
    where callback.delivered_at is null and callback.abandoned_at is null and callback.next_attempt_at <= clock_timestamp()
    order by callback.next_attempt_at, callback.id
    limit %(limit)s
    for update skip locked
)

update job_callbacks as callback
set
    attempts = callback.attempts + 1,
    next_attempt_at = clock_timestamp() + make_interval(secs => %(lease)s)
from due, measurement_jobs as request
where callback.id = due.id and request.id = callback.job
returning callback.id, callback.account, callback.attempts, callback.body, callback.created_at, request.callback_url as url;

-- name: delivered
update job_callbacks
set
    delivered_at = clock_timestamp(),
    last_status_code = %(status_code)s,
    last_error = null
where id = %(id)s;

-- name: failed
update job_callbacks
set
    last_status_code = %(status_code)s,
    last_error = %(error)s,
    next_attempt_at = clock_timestamp() + make_interval(secs => %(wait)s),
    abandoned_at = case when clock_timestamp() + make_interval(secs => %(wait)s) > retry_until then clock_timestamp() end
where id = %(id)s
returning abandoned_at is not null as is_abandoned;

-- name: resend
update job_callbacks
set
    delivered_at = null,
    abandoned_at = null,
    next_attempt_at = clock_timestamp(),
    retry_until = clock_timestamp() + interval '3 days'
where id = %(id)s
returning id;

-- name: list
select
    callback.id,
    callback.job,
    callback.account,
    callback.state,
    callback.created_at,
    callback.attempts,
    callback.next_attempt_at,
    callback.delivered_at,
    callback.abandoned_at,
    callback.last_status_code,
    callback.last_error
from job_callbacks as callback
where
    (%(account)s::uuid is null or callback.account = %(account)s)
    and (not %(undelivered)s or callback.delivered_at is null)
order by callback.created_at desc, callback.id desc
limit %(limit)s;
