"""Body of a 200 response of `historic_stats`, as irregular as the vendor's. Pure.

Counts as strings, days without a count, nulls, entries in any order, missing blocks: drawn per recording by seed. The counts
are in `series`.
"""

import json
from datetime import date, timedelta
from functools import lru_cache

from measurement_pipeline.sandbox.catalogue import KnownRecording
from measurement_pipeline.sandbox.scenarios import Behaviour, Scenario
from measurement_pipeline.sandbox.series import GBUM72501895, history, scaled

OTHER_METRICS = {
    "youtube": "video_views_total",
    "soundcloud": "streams_total",
    "shazam": "shazams_total",
}
AGGREGATES = (
    "playlists_current",
    "playlist_reach_current",
    "playlists_editorial_current",
    "charts_current",
)


def render(
    isrc: str,
    known: KnownRecording,
    role: Scenario,
    behaviour: Behaviour,
    *,
    sources: tuple[str, ...],
    aggregates: bool,
    start: date | None,
    end: date | None,
    until: date,
) -> bytes:
    """The complete body for the requested sources and the days from `start` to `end`. `until` is the last day with data.

    Assembled as text, because json.dumps of a thousand points takes three times as long.
    """
    first, counts = history(isrc, known, behaviour, until)
    days = _days(first, len(counts))
    kept = slice(
        0 if start is None else max(0, (start - first).days),
        None if end is None else max(0, (end - first).days + 1),
    )
    stats = []
    if "spotify" in sources and role is not Scenario.NO_SPOTIFY:
        points = _spotify(isrc, days, counts, behaviour, aggregates=aggregates)
        stats.append(_entry("spotify", [] if role is Scenario.EMPTY else points[kept]))
    for source in sources:
        height = behaviour.draw(isrc, source)
        if source in OTHER_METRICS and height > 0.1:
            metric = OTHER_METRICS[source]
            values = scaled(counts, height)
            points = [f'{{"date":"{day}","{metric}":{value}}}' for day, value in zip(days, values, strict=True)]
            stats.append(_entry(source, points[kept]))
    # The order of entries has no meaning, so it varies.
    turn = int(behaviour.draw(isrc, "order") * (len(stats) or 1))
    stats = stats[turn:] + stats[:turn]
    parts = ['"result":"success"', '"message":"Data Retrieved."', f'"stats":[{",".join(stats)}]']
    if isrc == GBUM72501895 or behaviour.draw(isrc, "bare") >= behaviour.bare:
        info = {"songstats_track_id": f"s{isrc[4:]}", "title": known.title or f"Recording {isrc}"}
        parts[2:2] = [f'"track_info":{json.dumps(info)}', f'"source_ids":{json.dumps(sources)}']
    return f"{{{','.join(parts)}}}".encode()


@lru_cache(maxsize=64)
def _days(first: date, count: int) -> list[str]:
    return [(first + timedelta(days=place)).isoformat() for place in range(count)]


def _spotify(isrc: str, days: list[str], counts: list[int], behaviour: Behaviour, *, aggregates: bool) -> list[str]:
    fixed = isrc == GBUM72501895
    as_text = not fixed and behaviour.draw(isrc, "text") < behaviour.counts_as_text
    gaps = not fixed and behaviour.draw(isrc, "gaps") < behaviour.gaps
    level = 12 if fixed else int(5 + 70 * behaviour.draw(isrc, "popularity"))
    more = ""
    if aggregates:
        more = "".join(f',"{name}":{level * n}' for n, name in enumerate(AGGREGATES, 1))
    points = []
    for place, (day, count) in enumerate(zip(days, counts, strict=True)):
        value = f',"streams_total":"{count}.0"' if as_text else f',"streams_total":{count}'
        # One day in 53, permanently, even if it is the last day: alternately null and without the key.
        if gaps and place % 53 == 29:
            value = ',"streams_total":null' if place % 2 else ""
        popularity = level + (place * 3 // 7) % 20 if place > 2 else level
        points.append(f'{{"date":"{day}"{value},"popularity_current":{popularity}{more}}}')
    return points


def _entry(source: str, points: list[str]) -> str:
    return f'{{"source":"{source}","data":{{"history":[{",".join(points)}]}}}}'
