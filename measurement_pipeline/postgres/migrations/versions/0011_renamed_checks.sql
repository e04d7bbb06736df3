-- Checks were renamed. Without this, a renamed check that passes would not end the incident that it opened under its old name.
-- An incident that has ended keeps its key: no statement looks for it again.

update incidents as incident
set key = 'check ' || renamed.new_name || substr(incident.key, length('check ' || renamed.old_name) + 1)
from (
    values
    ('captures_are_made', 'captures_are_progressing'),
    ('counts_do_not_fall', 'counts_are_monotonic'),
    ('figures_are_in_range', 'values_in_range'),
    ('no_day_is_to_come', 'no_future_dates'),
    ('none_was_given_up', 'no_exhausted_recordings'),
    ('recordings_are_bought', 'backfill_is_progressing'),
    ('requests_are_answered', 'intake_is_progressing'),
    ('series_are_whole', 'series_have_no_gaps'),
    ('shown_is_stored', 'partitions_match_tables'),
    ('views_are_of_this_version', 'views_are_current')
) as renamed (old_name, new_name)
where incident.ended_at is null and starts_with(incident.key, 'check ' || renamed.old_name || ': ');
