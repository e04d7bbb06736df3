-- Each row of the queue is written anew when it is claimed and when it is settled, and an analyst's query keeps what was written over
-- for as long as it runs. So that it is taken away at the first chance after that: every minute, and at once.
alter table songstats_backfill_queue set (
    autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_cost_delay = 0
);

-- A place for the analysts' views. No table of theirs and no index: every figure they show is found by the primary key of
-- song_measurements, which keeps a recording's points together and in order.
do $$
begin
    -- Asked first, because `if not exists` wants the right to make schemas even where an administrator has made this one.
    if to_regnamespace('analytics') is null then
        create schema analytics;
    end if;
end
$$;
