"""Use case "albums become today's measurements": start the actor once, store its result, map it, store the counts.

`intake/` accepts requests for captures, and `defs/captures` decides which Dagster run executes one.
"""
