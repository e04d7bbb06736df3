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
