"""Callbacks in Dagster: a sensor watches the outbox, and a run sends what is due."""
