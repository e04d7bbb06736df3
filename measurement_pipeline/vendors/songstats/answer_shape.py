"""The form of a history answer, for the comparison with earlier ones. Pure."""

import json

from measurement_pipeline.domain.drift import Shape, shape_of


def shape_of_history(body: bytes, *, platform: str = "spotify") -> Shape | None:
    """The form of an answer without the figures of other platforms, whose set is a setting. None: not readable."""
    try:
        payload = json.loads(body)
    except (ValueError, RecursionError):
        return None
    stats = payload.get("stats") if isinstance(payload, dict) else None
    if not isinstance(stats, list):
        return None
    own = [entry for entry in stats if _source_of(entry) == platform]
    names = [
        {"source": entry["source"]}
        for entry in stats
        if _source_of(entry) != platform and isinstance(entry, dict) and isinstance(entry.get("source"), str)
    ]
    return {**shape_of({"other_stats": names}), **shape_of({**payload, "stats": own})}


def _source_of(entry: object) -> str | None:
    source = entry.get("source") if isinstance(entry, dict) else None
    return source.strip().casefold() if isinstance(source, str) else None
