-- Two conditions that several statements share. PostgreSQL plans a view as part of the query that reads it.

create view songstats_call_gate as
select breaker = 'closed' and coalesce(paused_until <= clock_timestamp(), true) as is_open
from vendor_state
where vendor = 'songstats';

create view songstats_unread_responses as
select
    id,
    song,
    ledger
from songstats_responses
where parser_version is null;
