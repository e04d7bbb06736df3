-- What was known at a moment. Not `security definer`, so that PostgreSQL plans it as part of the query that calls it: a filter by
-- song reads one song.
create or replace function analytics.play_counts_as_of(moment timestamptz)
returns setof analytics.play_count_points
language sql stable parallel safe
as $$
    select points.*
    from analytics.play_count_points as points
    where points.learnt_at <= moment and (points.superseded_at is null or points.superseded_at > moment)
$$;
comment on function analytics.play_counts_as_of(timestamptz) is 'The play counts as they were known at a moment: of each point the newest that had been learnt by then.';
