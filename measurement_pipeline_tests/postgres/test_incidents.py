"""Incidents in the table: one open row per key, and its end."""

from measurement_pipeline.domain.backfill_queue import BREAKER_OPENED
from measurement_pipeline.postgres import incidents
from measurement_pipeline.postgres.database import Connection


def rows(connection: Connection) -> list[tuple[str, int, bool]]:
    result = connection.execute("select key, times, ended_at is null as is_open from incidents order by id")
    return [(row["key"], row["times"], row["is_open"]) for row in result]


def test_the_same_key_is_one_incident_that_counts(connection: Connection):
    assert incidents.record(connection, key="a", what="first")
    assert not incidents.record(connection, key="a", what="second")
    assert incidents.record(connection, key="b", what="other")
    assert rows(connection) == [("a", 2, True), ("b", 1, True)]
    (row,) = connection.execute("select what from incidents where key = 'a'")
    assert row["what"] == "first"


def test_an_incident_not_seen_for_a_week_ends_and_the_same_key_is_a_new_one(connection: Connection):
    for key in ("a", "check totals_add_up: x"):
        incidents.record(connection, key=key, what="first")
        connection.execute("update incidents set last_at = last_at - interval '6 days 23 hours' where key = %s", (key,))
        assert not incidents.record(connection, key=key, what="again")
        connection.execute("update incidents set last_at = last_at - interval '7 days 1 minute' where key = %s", (key,))
        assert incidents.list_open(connection) == []
        assert incidents.record(connection, key=key, what="new")
        connection.execute("delete from incidents where ended_at is null")
    (old, _) = connection.execute("select ended_at = last_at as same from incidents order by id")
    assert old["same"], "it ended when it was last seen"


def test_a_recently_ended_incident_reopens_if_the_caller_requests_it(connection: Connection):
    for key in ("a", "b"):
        incidents.record(connection, key=key, what="first")
    incidents.end_by_source(connection, source="a")
    assert not incidents.record(connection, key="a", what="again", same_within_hours=6)
    assert rows(connection) == [("a", 2, True), ("b", 1, True)]
    incidents.end_by_source(connection, source="a")
    connection.execute("update incidents set ended_at = ended_at - interval '6 hours 1 minute' where key = 'a'")
    assert incidents.record(connection, key="a", what="new", same_within_hours=6)
    assert rows(connection) == [("a", 2, False), ("b", 1, True), ("a", 1, True)]
    incidents.end_by_source(connection, source="a")
    assert incidents.record(connection, key="a", what="newer")


def test_a_breaker_incident_recorded_after_the_close_ends_at_the_next_opening(connection: Connection):
    key = f"songstats_backfill: {BREAKER_OPENED}HTTP …"
    connection.execute("update vendor_state set streak_since = clock_timestamp()")
    assert incidents.record(connection, key=key, what="late")
    assert not incidents.record(connection, key=key, what="later still")
    connection.execute("update vendor_state set breaker = 'open', opened_at = clock_timestamp()")
    assert incidents.record(connection, key=key, what="new")
    assert rows(connection) == [(key, 2, False), (key, 1, True)]
    (old,) = connection.execute("select ended_at = last_at as same from incidents order by id limit 1")
    assert old["same"]


def test_ending_a_source_leaves_others_open(connection: Connection):
    for key in ("check a: x", "check a: y", "check ab: x", "job: x"):
        incidents.record(connection, key=key, what=key)
    incidents.end_by_source(connection, source="check a: ")
    assert [key for key, _, is_open in rows(connection) if is_open] == ["check ab: x", "job: x"]


def test_an_unposted_incident_older_than_a_week_is_not_posted(connection: Connection):
    incidents.record(connection, key="a", what="old")
    connection.execute("update incidents set last_at = last_at - interval '8 days'")
    assert not incidents.post_next(connection, lambda _incident: None, after=0)


def test_an_expired_incident_is_not_listed_as_open(connection: Connection):
    opened = f"songstats_backfill: {BREAKER_OPENED}HTTP …"
    for key in ("unseen", "ended: x", opened, "open"):
        incidents.record(connection, key=key, what=key)
    incidents.end_by_source(connection, source="ended: ")
    connection.execute("update incidents set last_at = last_at - interval '7 days 1 minute' where key = 'unseen'")
    assert [one.key for one in incidents.list_open(connection)] == [opened, "open"]
    connection.execute("update vendor_state set streak_since = clock_timestamp()")
    assert [one.key for one in incidents.list_open(connection)] == ["open"]
