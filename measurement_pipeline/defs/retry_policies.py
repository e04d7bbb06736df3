"""How often, and after how long, an op is tried again inside its run.

Longer waits are the planner's: `not_before` and `paused_until`.
"""

import dagster as dg

# A database that restarts, a vendor that stumbles: 2, 6 and 14 seconds.
seconds = dg.RetryPolicy(max_retries=3, delay=2, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS)
