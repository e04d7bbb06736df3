-- A request may name an address that is called when it ends or needs a card.
alter table measurement_jobs
add column callback_url text constraint measurement_jobs_callback_url_length check (length(callback_url) <= 2048);

create table job_callbacks (
    id uuid primary key default gen_random_uuid(),
    job uuid not null references measurement_jobs (id),
    account uuid not null,
    state text not null,
    body jsonb not null,
    created_at timestamptz not null default now(),
    attempts integer not null default 0,
    next_attempt_at timestamptz not null default now(),
    retry_until timestamptz not null default now() + interval '3 days',
    delivered_at timestamptz,
    abandoned_at timestamptz,
    last_status_code integer,
    last_error text
);
create index job_callbacks_due on job_callbacks (next_attempt_at) where delivered_at is null and abandoned_at is null;
create index job_callbacks_job on job_callbacks (job);

-- A trigger, so that the row commits with the state, whichever statement changes it.
create function enqueue_job_callback() returns trigger
language plpgsql
as $$
begin
    insert into job_callbacks (job, account, state, body)
    values (
        new.id,
        new.account,
        new.state,
        jsonb_build_object(
            'type', 'measurement_job.' || new.state,
            'job', jsonb_build_object(
                'id', new.id,
                'source', left(new.source, 100),
                'state', new.state,
                'status_code', new.status_code,
                'error', new.error,
                'asked', new.asked,
                'enqueued', new.enqueued,
                'skipped', new.skipped,
                'left_out', new.left_out,
                'updated_at', new.updated_at
            )
        )
    );
    return null;
end
$$;
create trigger measurement_jobs_enqueue_callback
after update of state on measurement_jobs
for each row
when (
    new.callback_url is not null
    and new.state is distinct from old.state
    and new.state in ('done', 'failed', 'rejected', 'payment_required', 'withdrawn')
)
execute function enqueue_job_callback();
