"""Captures in Dagster: albums become today's play counts, one partition for each capture."""
