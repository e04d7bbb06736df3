"""Intake in Dagster: waiting requests become queue rows or captures."""
