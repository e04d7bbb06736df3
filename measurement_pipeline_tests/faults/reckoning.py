"""What is asked of the tables and of the vendor's end after any fault: nothing lost or bought twice, each hit accounted for."""

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
class Reckoning:
    """`hits` at the vendor's end, of which `in_vain` brought nothing; the ledger holds `unknown` whose fate nobody knows."""

    hits: int
    in_vain: int
    unknown: int


def nothing_breaks(bench: Workbench, *, at_rest: bool = True) -> None:
    """Every invariant that the tables can show holds."""
    with connect(bench.database_url) as connection:
        found = audit(connection, max_attempts=bench.terms.rules.max_attempts, at_rest=at_rest)
    breaches = [f"{one.invariant}: {breach}" for one in found for breach in one.breaches]
    assert not breaches, breaches


def hits_of(bench: Workbench) -> Counter[str]:
    """How often the vendor was asked for each recording."""
    return Counter(request["isrc"] for request in bench.sandbox.requests(HISTORY))


def kept(bench: Workbench) -> set[str]:
    """The recordings whose answer is kept."""
    return {row["song"] for row in bench.sql("select song from songstats_responses")}


def everything_is_stored_and_each_hit_accounted_for(bench: Workbench, songs: Sequence[str]) -> Reckoning:
    """All of `songs`, which are all there are, are stored whole from one answer each, and the ledger knows of every hit.

    A recording was hit once, and beyond that no more often than its reservations of unknown fate allow for.
    """
    nothing_breaks(bench)
    assert bench.statuses() == {"stored": len(songs)}
    ledger = bench.ledger()
    stored = Counter(hit["song"] for hit in ledger if (hit["reason"], hit["billable"]) == ("stored", True))
    unknown = Counter(hit["song"] for hit in ledger if (hit["reason"], hit["billable"]) == (UNKNOWN, None))
    assert stored == dict.fromkeys(songs, 1), "an answer that was kept is never bought again"
    odd = [hit for hit in ledger if (hit["reason"], hit["billable"]) not in {("stored", True), (UNKNOWN, None)}]
    assert odd == [], "a hit is known, or known to be unknown"
    hits = hits_of(bench)
    assert set(hits) == set(songs)
    assert {song: n for song, n in hits.items() if n > 1 + unknown[song]} == {}
    measurements_are_whole(bench)
    return Reckoning(hits.total(), hits.total() - len(songs), unknown.total())


def measurements_are_whole(bench: Workbench) -> None:
    """Each kept answer is stored, every point of it, and once; a recording has one history, from one answer."""
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
