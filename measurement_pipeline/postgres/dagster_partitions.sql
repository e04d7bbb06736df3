-- Partitions in order of registration, from Dagster's own tables in Dagster's database.

-- name: partition_places
-- Partitions in order of registration. `next_id`: the one that was registered next.
select
    asked.partition,
    asked.id,
    (
        select later.id
        from dynamic_partitions as later
        where later.partitions_def_name = %(name)s and later.id > asked.id
        order by later.id
        limit 1
    ) as next_id
from dynamic_partitions as asked
where asked.partitions_def_name = %(name)s and asked.partition = any(%(keys)s)
order by asked.id;

-- name: partitions_between
select covered.partition
from unnest(%(first)s::text[], %(last)s::text[]) as chosen (first, last)
inner join dynamic_partitions as first on first.partitions_def_name = %(name)s and chosen.first = first.partition
inner join dynamic_partitions as last on last.partitions_def_name = %(name)s and chosen.last = last.partition
inner join dynamic_partitions as covered
    on covered.partitions_def_name = %(name)s and covered.id between first.id and last.id;

-- name: partitions_near
select distinct near.partition
from dynamic_partitions as asked
cross join lateral (
    (
        select before.partition
        from dynamic_partitions as before
        where before.partitions_def_name = %(name)s and before.id < asked.id
        order by before.id desc
        limit %(distance)s
    )
    union all
    (
        select later.partition
        from dynamic_partitions as later
        where later.partitions_def_name = %(name)s and later.id > asked.id
        order by later.id
        limit %(distance)s
    )
) as near
where asked.partitions_def_name = %(name)s and asked.partition = any(%(keys)s);
