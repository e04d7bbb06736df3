"""An operator's pause: nothing is reserved while it holds, and every explanation names it."""

from datetime import timedelta
from threading import Thread
from uuid import uuid4

import pytest

from measurement_pipeline.domain.blockers import BlockerKind, backfill_blockers, describe
from measurement_pipeline.domain.purchase_pause import PausableVendor, PauseScope
from measurement_pipeline.postgres import health, purchase_pauses, songstats_ledger
from measurement_pipeline.postgres.database import connect
from measurement_pipeline.postgres.songstats_ledger import ReservationVerdict
from measurement_pipeline_tests.faults.waiting import wait_until
from measurement_pipeline_tests.postgres.conftest import OPERATORS, Tables, isrcs
from measurement_pipeline_tests.postgres.test_songstats_ledger import reserve, verdicts

EVERYTHING = PauseScope()
HOUR = timedelta(hours=1)


def pause(tables: Tables, scope: PauseScope, *, reason: str = "invoice unpaid") -> None:
    with connect(tables.database_url) as connection:
        purchase_pauses.begin(connection, scope, until=None, reason=reason, actor="alice")


def explain(tables: Tables) -> list[tuple[BlockerKind, str]]:
    with connect(tables.database_url) as connection:
        state = health.read_backfill_state(connection, hits_allowed=900, operators_account=OPERATORS)
    return [(one.kind, describe(one)) for one in backfill_blockers(state)]


def claimed(tables: Tables, songs: list[str]) -> list[str]:
    return [claim.song for claim in tables.claim(songs)]


@pytest.mark.parametrize("scope", [EVERYTHING, PauseScope(vendor=PausableVendor.SONGSTATS)])
def test_while_everything_or_songstats_is_paused_nothing_is_claimed_or_reserved(tables: Tables, scope: PauseScope):
    first, second = isrcs(2)
    tables.wanted([first, second])
    claims = tables.claim([first])
    pause(tables, scope)
    assert verdicts(reserve(tables, claims)) == [ReservationVerdict.BREAKER_OPEN_OR_PAUSED]
    assert claimed(tables, [second]) == []
    ((kind, text),) = explain(tables)
    assert kind is BlockerKind.OPERATOR_PAUSE
    assert "paused by alice until it is resumed: invoice unpaid." in text
    assert f"`measurement-pipeline resume{scope.options}`" in text
    with connect(tables.database_url) as connection:
        assert purchase_pauses.end(connection, scope, actor="alice") is not None
    assert claimed(tables, [second]) == [second]
    assert verdicts(reserve(tables, claims)) == [ReservationVerdict.RESERVED]


def test_a_pause_of_apify_stops_no_hit(tables: Tables):
    songs = isrcs(1)
    tables.wanted(songs)
    pause(tables, PauseScope(vendor=PausableVendor.APIFY))
    assert claimed(tables, songs) == songs


def test_a_paused_account_pays_for_nothing_and_another_one_pays_in_its_place(tables: Tables):
    alone, shared = isrcs(2)
    paused, other = tables.decide(uuid4()), tables.decide(uuid4())
    tables.enqueue([alone, shared])
    tables.request([alone, shared], account=paused)
    job = tables.request([shared], account=other)
    claims = tables.claim([alone, shared])
    pause(tables, PauseScope(account=paused))
    found = reserve(tables, claims)
    assert verdicts(found) == [ReservationVerdict.ACCOUNT_PAUSED, ReservationVerdict.RESERVED]
    assert (found[1].account, found[1].job) == (other, job)
    settled = "claimed_by = null, claimed_at = null, heartbeat_at = null where song = %s"
    tables.sql(f"update songstats_backfill_queue set status = 'done', outcome = 'stored', {settled}", shared)
    tables.sql(f"update songstats_backfill_queue set status = 'pending', {settled}", alone)
    ((kind, text),) = explain(tables)
    assert kind is BlockerKind.OPERATOR_PAUSE
    assert f"Purchases of account {paused} paused by alice" in text
    assert "holds 1 of 1 waiting recording" in text


def test_a_pause_ends_by_itself_by_the_databases_clock(tables: Tables):
    songs = isrcs(1)
    tables.wanted(songs)
    pause(tables, EVERYTHING)
    tables.sql(
        "update purchase_pauses set paused_at = now() - interval '2 s', paused_until = now() + interval '1 hour'"
    )
    assert claimed(tables, songs) == []
    tables.sql("update purchase_pauses set paused_until = now() - interval '1 s'")
    assert explain(tables) == []
    assert claimed(tables, songs) == songs


def test_a_pause_replaces_an_earlier_one_of_the_same_scope_and_is_recorded(tables: Tables):
    pause(tables, EVERYTHING, reason="first")
    with connect(tables.database_url) as connection:
        (now,) = (row["now"] for row in connection.execute("select now()"))
        purchase_pauses.begin(connection, EVERYTHING, until=now + HOUR, reason="second", actor="bob")
        with pytest.raises(purchase_pauses.PauseEndsInThePastError):
            purchase_pauses.begin(connection, EVERYTHING, until=now - HOUR, reason="third", actor="bob")
        assert [(one.reason, one.paused_until) for one in purchase_pauses.list_active(connection)] == [
            ("second", now + HOUR)
        ]
        assert purchase_pauses.end(connection, PauseScope(account=uuid4()), actor="bob") is None
    acts = tables.sql("select actor, act, detail ->> 'reason' as reason from operator_acts order by id")
    assert [tuple(row.values()) for row in acts] == [
        ("alice", "purchases paused", "first"),
        ("bob", "purchases paused", "second"),
    ]


def test_a_pause_begins_only_after_the_reservations_that_have_begun(tables: Tables):
    """Otherwise a reservation whose snapshot is older could be committed after the pause."""
    waiting = "select count(*) as n from pg_locks where locktype = 'advisory' and not granted"
    thread = Thread(target=pause, args=(tables, EVERYTHING))
    with connect(tables.database_url) as connection, connection.transaction():
        songstats_ledger.lock_reservations(connection, seconds=10)
        thread.start()
        wait_until(lambda: tables.sql(waiting)[0]["n"] == 1, what="the pause to wait")
        assert tables.sql("select id from purchase_pauses") == []
    thread.join()
    assert len(tables.sql("select id from purchase_pauses")) == 1
