"""The use case "a due row becomes measurements", without Dagster: the money path lives here.

`planning` says which rows to ask for, `run` what a run does with each recording it covers, `drain` walks the money path for
those it claimed, `sweep` and `requeue` put right what was left behind. No SQL, no HTTP and no vendor's words here.
"""
