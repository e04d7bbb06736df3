"""The checks of `songstats_history`: what an operator sees as passing or failing, with the reason in words.

Each asks a use case for its finding and shows it; what makes a finding is `health/`'s.
"""

import dagster as dg

asset_checks: list[dg.AssetChecksDefinition] = []
