"""The historical backfill in Dagster: due rows become measurements, one partition for each ISRC."""
