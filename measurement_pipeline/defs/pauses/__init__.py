"""Operators' pauses of purchases in Dagster: launched by a person in the UI, with config."""
