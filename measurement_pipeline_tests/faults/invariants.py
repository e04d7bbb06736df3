"""Assertions that hold after any fault: nothing is lost, nothing is bought twice, and the ledger accounts for every hit."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from measurement_pipeline.postgres.audit import audit
from measurement_pipeline.postgres.database import connect
from measurement_pipeline.vendors.songstats.historic_stats import judge
from measurement_pipeline.vendors.songstats.response import SongstatsResponse
from measurement_pipeline_tests.workbench import Workbench

HISTORY = "/enterprise/v1/tracks/historic_stats"
UNKNOWN = "crashed: unknown"


@dataclass(frozen=True)
class HitCounts:
    """`hits` that the vendor received, `in_vain` of them without a result; the ledger holds `unknown` hits without a known
    fate.
    """

    hits: int
    in_vain: int
    unknown: int


def assert_invariants_hold(bench: Workbench, *, at_rest: bool = True) -> None:
    """Assert every invariant that the tables can show."""
    with connect(bench.database_url) as connection:
        result = audit(connection, max_attempts=bench.config.rules.max_attempts, at_rest=at_rest)
    breaches = [f"{one.invariant}: {breach}" for one in result for breach in one.breaches]
    assert not breaches, breaches


def count_hits(bench: Workbench) -> Counter[str]:
    """How often the vendor received a request for each recording."""
    return Counter(request["isrc"] for request in bench.sandbox.requests(HISTORY))


def recordings_with_response(bench: Workbench) -> set[str]:
    """The recordings whose response is stored."""
    return {row["song"] for row in bench.sql("select song from songstats_responses")}


def assert_all_stored_and_accounted_for(bench: Workbench, songs: Sequence[str]) -> HitCounts:
    """Assert that all of `songs` are stored completely, each from one response, and that the ledger knows every hit.

    `songs` are all recordings in the queue. Each was hit once, plus at most once for each of its reservations with an unknown
    fate.
    """
    assert_invariants_hold(bench)
    assert bench.statuses() == {"stored": len(songs)}
    ledger = bench.ledger()
    stored = Counter(hit["song"] for hit in ledger if (hit["reason"], hit["billable"]) == ("stored", True))
    unknown = Counter(hit["song"] for hit in ledger if (hit["reason"], hit["billable"]) == (UNKNOWN, None))
    assert stored == dict.fromkeys(songs, 1), "a stored response is never bought again"
    odd = [hit for hit in ledger if (hit["reason"], hit["billable"]) not in {("stored", True), (UNKNOWN, None)}]
    assert odd == [], "a hit has a cause other than stored or unknown"
    hits = count_hits(bench)
    assert set(hits) == set(songs)
    assert {song: n for song, n in hits.items() if n > 1 + unknown[song]} == {}
    assert_measurements_complete(bench)
    return HitCounts(hits.total(), hits.total() - len(songs), unknown.total())


def assert_measurements_complete(bench: Workbench) -> None:
    """Assert that each response is stored completely and once, and that each recording has one history from one response."""
    answers = bench.sql("select * from songstats_responses order by id")
    stored = bench.sql("select song, raw_ref, count(*) n from song_measurements group by 1, 2")
    expected = set()
    for row in answers:
        history = judge(SongstatsResponse(row["status_code"], row["headers"], row["body"]), is_key_valid=True).history
        assert history is not None
        assert history.play_counts
        expected.add(
            (row["song"], f"songstats_responses/{row['id']}", len(history.play_counts) + len(history.popularity))
        )
    assert {(r["song"], r["raw_ref"], r["n"]) for r in stored} == expected
    assert len(stored) == len({row["song"] for row in answers})
