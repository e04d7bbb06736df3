"""The use case "a due row becomes measurements", without Dagster: the money path lives here.

`planning` says which rows to ask for, `run` what a run does with each recording it covers, `drain` walks the money path for
those it claimed, with `trust` watching what the answers say of the vendor; `sweep` puts right what was left behind, `probe`
asks whether the vendor is back, and `overrides` is what a person may decide. No SQL, no HTTP and no vendor's words here.
"""
