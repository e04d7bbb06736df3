"""The health of the pipeline in Dagster: checks, and incidents of failed runs."""
