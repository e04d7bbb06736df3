"""Reports, charts and exports from the analysts' views. No Dagster; reads only views."""
