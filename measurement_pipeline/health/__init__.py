"""The use case "is it well, and if not, who is told": findings about queue, requests and figures, and incidents. No Dagster.

What is asked of the tables is `postgres/health`; what Dagster's instance shows is handed in. Each finding is decided by a pure
function.
"""
