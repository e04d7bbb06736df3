"""The analysts' views in Dagster: assets, charts, checks, and the refresh after each backfill."""
