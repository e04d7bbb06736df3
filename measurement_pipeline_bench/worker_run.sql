-- Times of a run's stages, in seconds of Unix time.

-- name: stages
select
    ledger.song,
    extract(epoch from ledger.reserved_at)::double precision as reserved,
    extract(epoch from response.received_at)::double precision as kept,
    extract(epoch from queue.updated_at)::double precision as settled
from songstats_quota_ledger as ledger
inner join songstats_responses as response on ledger.id = response.ledger
inner join songstats_backfill_queue as queue on ledger.song = queue.song;
