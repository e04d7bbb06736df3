"""The Dagster objects. Only this package and the commands import dagster. Thin: unpack, call, report."""
