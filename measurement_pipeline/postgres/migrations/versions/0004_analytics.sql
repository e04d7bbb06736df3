-- Claiming and settling update each row of the queue, and an analyst's running query keeps the dead rows. These settings make
-- autovacuum remove them soon after the query ends.
alter table songstats_backfill_queue set (
    autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_cost_delay = 0
);

-- Schema for the analysts' views. They need no table and no index: the primary key of song_measurements keeps the points of a
-- recording together and in order.
do $$
begin
    -- Checked first, because `if not exists` requires the right to create schemas even if the schema exists.
    if to_regnamespace('analytics') is null then
        create schema analytics;
    end if;
end
$$;
