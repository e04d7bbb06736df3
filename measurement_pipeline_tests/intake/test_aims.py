"""A request that wants a part of its scope: it buys that part, is done with it, and states what it left out."""

from collections.abc import Callable
from decimal import Decimal
from uuid import UUID, uuid4

from measurement_pipeline.domain.coverage import Aim
from measurement_pipeline.domain.payment import Decision
from measurement_pipeline.postgres import measurement_jobs
from measurement_pipeline.postgres.database import connect
from measurement_pipeline_tests.intake.conftest import IntakeBench
from measurement_pipeline_tests.workbench import isrcs


def submit(bench: IntakeBench, songs: list[str], aim: Aim, *, account: UUID) -> UUID:
    with connect(bench.database_url) as connection:
        return measurement_jobs.submit(
            connection, account=account, source="historical", scope={"isrcs": songs}, aim=aim
        )


def test_the_most_played_part_is_bought_and_the_rest_only_for_another_request(
    intake_bench: IntakeBench, paid: Callable[[UUID], Decision]
):
    songs = isrcs(4)
    intake_bench.sql("insert into songs (isrc) select unnest(%s::text[])", songs)
    for song, count in zip(songs, (10, 50, 0, 40), strict=True):
        intake_bench.measured(song, count)
    top = submit(intake_bench, songs, Aim(limit=1), account=uuid4())
    share = submit(intake_bench, songs, Aim(coverage=Decimal("0.9")), account=uuid4())
    intake_bench.process(paid)
    assert intake_bench.queue() == {songs[1]: "pending", songs[3]: "pending"}
    figures = "select asked, enqueued, left_out, covered_share from measurement_jobs where id = %s"
    assert tuple(intake_bench.sql(figures, top)[0].values()) == (1, 1, 3, 0.5)
    assert tuple(intake_bench.sql(figures, share)[0].values()) == (2, 1, 2, 0.9)
    intake_bench.settle_row(songs[1], "stored")
    with connect(intake_bench.database_url) as connection:
        assert measurement_jobs.settle(connection) == [top]
    everything = submit(intake_bench, songs, Aim(), account=uuid4())
    intake_bench.process(paid)
    assert intake_bench.queue() == {songs[1]: "stored", **dict.fromkeys([songs[0], songs[2], songs[3]], "pending")}
    assert intake_bench.receipt(everything) == (4, 2, 1, 1)
