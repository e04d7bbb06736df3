"""The use case "a due row becomes measurements", without Dagster: the money path lives here.

`planning` selects the rows of the next runs. `run` covers the recordings of one run, and `worker` buys those that it claimed.
`circuit_breaker` stops calls when the responses cast doubt on the key or the vendor. `reclaim` repairs what crashes left behind,
`vendor_probe` tests whether the vendor is back, and `operator_actions` holds what a person may override. No SQL and no HTTP here.
"""
