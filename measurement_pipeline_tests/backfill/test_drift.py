"""The first stored answer of a day beside the hundred before it: a lost field opens the breaker after one answer."""

import json
from typing import Any

from measurement_pipeline.domain.drift import MIN_EARLIER_ANSWERS
from measurement_pipeline.postgres import songstats_ledger
from measurement_pipeline.postgres.database import connect
from measurement_pipeline_tests.backfill.test_money_path import HISTORY
from measurement_pipeline_tests.workbench import Workbench, isrcs


def buy_yesterday(bench: Workbench) -> dict[str, Any]:
    """Enough answers of yesterday, and the content of one."""
    songs = isrcs(MIN_EARLIER_ANSWERS)
    bench.submit_request(songs)
    bench.run_backfill(songs)
    bench.sql("update songstats_quota_ledger set settled_at = settled_at - interval '1 day'")
    (row,) = bench.sql("select body from songstats_responses order by id limit 1")
    content: dict[str, Any] = json.loads(bytes(row["body"]))
    return content


def buy_today(bench: Workbench, content: dict[str, Any]) -> dict[str, Any]:
    """Buy recordings whose answers have this content; the state of the breaker afterwards."""
    songs = isrcs(8, start=100)
    bench.submit_request(songs)
    bench.sandbox.faults(HISTORY, status=200, body=json.dumps(content))
    bench.run_backfill(songs, run="run-2")
    return bench.sql("select breaker, breaker_kind, reason from vendor_state where vendor = 'songstats'")[0]


def test_a_lost_field_opens_the_breaker_after_one_answer(bench: Workbench):
    content = buy_yesterday(bench)
    del content["message"]
    state = buy_today(bench, content)
    assert (state["breaker"], state["breaker_kind"]) == ("open", "drift")
    assert state["reason"] == "the first answer of the day lacks message, which every earlier one has"
    # Those in flight beside the first one are spent too; a run begins with five.
    assert len(bench.ledger()) - MIN_EARLIER_ANSWERS <= 5


def test_a_new_field_is_recorded_and_stops_nothing(bench: Workbench):
    state = buy_today(bench, {**buy_yesterday(bench), "page": 1})
    assert state["breaker"] == "closed"
    assert len(bench.ledger()) == MIN_EARLIER_ANSWERS + 8
    with connect(bench.database_url) as connection:
        found = songstats_ledger.get_latest_drift(connection)
    assert found is not None
    assert found[1].new == ("page",)
    # Once a day: the other answers are not compared.
    assert len(bench.sql("select id from vendor_drifts")) == 1


def test_a_later_answer_of_a_day_is_not_compared(bench: Workbench):
    content = buy_yesterday(bench)
    # The day's first answer was stored before.
    bench.sql(
        "update songstats_quota_ledger set settled_at = now() where id = (select max(id) from songstats_quota_ledger)"
    )
    del content["message"]
    assert buy_today(bench, content)["breaker"] == "closed"
