"""The keys of the assets: in one place, because sensors, checks and sweeps of one slice name the assets of another."""

import dagster as dg

SONGSTATS_HISTORY = dg.AssetKey("songstats_history")
CURRENT_PLAY_COUNTS = dg.AssetKey("current_play_counts")
PIPELINE_HEALTH = dg.AssetKey("pipeline_health")

# The group of the analysts' assets, and the first part of their keys.
ANALYTICS = "analytics"
CATALOG_CHARTS = dg.AssetKey([ANALYTICS, "catalog_charts"])


def view_key(view: str) -> dg.AssetKey:
    """The asset of a view of the schema `analytics`."""
    return dg.AssetKey([ANALYTICS, view])
