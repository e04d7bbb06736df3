"""HTTP API for measurement jobs and measurements. It uses the same intake as a Dagster run and does not import Dagster.

A sibling of `defs`. `ApiConfig` (`config.py`) contains everything it needs; it reads no environment variables.
"""
