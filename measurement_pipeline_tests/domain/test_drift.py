"""The form of an answer beside a hundred earlier ones: what is a warning, and what stops calls."""

from typing import Any

import pytest

from measurement_pipeline.domain.drift import MIN_EARLIER_ANSWERS, Drift, compare_shapes, shape_of


def answer(**changed: Any) -> dict[str, Any]:
    point = {"date": "2026-01-01", "streams_total": 5}
    history = {"source": "spotify", "data": {"history": [point, {**point, "streams_total": None}]}}
    return {"result": "success", "stats": [history], **changed}


EARLIER = [shape_of(answer())] * (MIN_EARLIER_ANSWERS - 1) + [shape_of(answer(track_info={"title": "A"}))]


def drift(latest: object) -> Drift:
    return compare_shapes(EARLIER, shape_of(latest))


def points(*found: dict[str, Any], source: str = "spotify") -> list[dict[str, Any]]:
    return [{"source": source, "data": {"history": list(found)}}]


@pytest.mark.parametrize(
    "latest",
    [
        answer(),
        answer(track_info={"title": "B"}),
        # Counts as text, as Songstats sends them at times.
        answer(stats=points({"date": "2026-01-01", "streams_total": "296422273.0"})),
        answer(stats=points(*[{"date": "2026-01-01", "streams_total": 5}] * 3000)),
    ],
)
def test_what_varied_before_is_no_drift(latest: object):
    assert drift(latest) == Drift()


def test_a_new_field_or_source_is_a_warning():
    found = drift(answer(stats=points({"date": "2026-01-01", "streams_total": 5, "skips": 1}, source="Tidal"), page=1))
    assert found.new == ("page", "stats[].data.history[].skips", "stats[].source=tidal")
    # The platforms that are requested are a setting, so a name that is gone says nothing.
    assert not found.is_serious


def test_a_missing_field_and_a_changed_type_stop_calls_and_are_named():
    missing = drift(answer(stats=points({"day": "2026-01-01", "streams_total": 5})))
    assert missing.is_serious
    assert missing.reason == (
        "the first answer of the day lacks stats[].data.history[].date, which every earlier one has"
    )
    changed = drift(answer(stats=points({"date": "2026-01-01", "streams_total": {"value": 5}})))
    assert changed.changed == ("stats[].data.history[].streams_total (object)",)
    assert "has another type in" in changed.reason


def test_a_few_earlier_answers_say_nothing():
    assert compare_shapes(EARLIER[1:], shape_of({})) == Drift()
