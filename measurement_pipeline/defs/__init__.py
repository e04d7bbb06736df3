"""The Dagster objects: the only package that imports dagster. Thin: unpack, call, report."""
