"""The HTTP API: measurement jobs and reads for clients that are programs. Without Dagster: it calls the same intake as a run.

A sibling of `defs`. It is handed all that it works with (`desk`), and reads no environment.
"""
