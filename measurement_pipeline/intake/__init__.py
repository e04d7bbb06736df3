"""The use case "a request becomes queue rows", without Dagster. The sensor's run, the CLI and the HTTP API call it."""
