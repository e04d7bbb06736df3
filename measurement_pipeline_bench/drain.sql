-- What a drain costs the server.

-- name: transactions
select
    pg_backend_pid() as pid,
    xact_commit as transactions
from pg_stat_database
where datname = current_database();
