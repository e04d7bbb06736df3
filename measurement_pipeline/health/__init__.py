"""Health: checks of the queue, requests and measurements, and incidents with alerts. No Dagster.

`postgres/health` reads the tables, and Dagster's state is passed in. Pure functions decide each check.
"""
