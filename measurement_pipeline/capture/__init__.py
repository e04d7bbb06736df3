"""The use case "albums become measurements of today": start the actor once, keep its result, map it, measure.

How a capture is asked for is `intake/`; which of Dagster's runs makes it, `defs/captures`.
"""
