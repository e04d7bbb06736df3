"""The use case "a request becomes queue rows", without Dagster: the sensor's run, the CLI and HTTP all call it."""
