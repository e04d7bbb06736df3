"""A harness for captures: the test's database, the vendor doubles, and short helpers."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID, uuid4

import pytest

from measurement_pipeline.capture.config import CaptureConfig, CaptureDependencies, CaptureServices
from measurement_pipeline.capture.outcome import CaptureOutcome
from measurement_pipeline.capture.run import Launch, make_capture
from measurement_pipeline.domain.capture import CaptureSpec, CaptureTicket, OverCap, Schedule
from measurement_pipeline.postgres import captures
from measurement_pipeline.postgres.audit import audit
from measurement_pipeline.postgres.database import connect
from measurement_pipeline.sandbox import SandboxClient, running
from measurement_pipeline.sandbox.albums import album_id, track_id
from measurement_pipeline.sandbox.catalogue import KnownRecording
from measurement_pipeline.vendors.apify.client import ApifyClient
from measurement_pipeline.vendors.spotify.client import SpotifyClient
from measurement_pipeline_tests.capture_limits import capture_limits
from measurement_pipeline_tests.database import execute
from measurement_pipeline_tests.faults.waiting import wait_until

ARTIST = "The Sandbox Players"


def isrcs(count: int, *, start: int = 0) -> list[str]:
    """ISRCs of IFPI's example registrant, which are never real recordings."""
    return [f"AA6Q72{number:06d}" for number in range(start, start + count)]


def album(name: str) -> str:
    """Spotify's id of an album of the doubles'."""
    return album_id(ARTIST, name)


def track(isrc: str, name: str) -> str:
    """Spotify's id of a recording as a track of that album."""
    return track_id(isrc, ARTIST, name)


@dataclass
class CaptureHarness:
    """The database, the doubles and the services of a capture test."""

    database_url: str
    sandbox: SandboxClient
    captures: CaptureServices
    account: UUID = field(default_factory=uuid4)

    def sql(self, statement: str, *parameters: object) -> list[dict[str, Any]]:
        return execute(self.database_url, statement, parameters)

    def publish(self, albums: Mapping[str, Mapping[str, int]]) -> list[str]:
        """Let Spotify display these counts: album → ISRC → count; return the albums' ids in order."""
        on: dict[str, list[str]] = {}
        counts: dict[str, int] = {}
        for name, tracks in albums.items():
            for isrc, count in tracks.items():
                on.setdefault(isrc, []).append(name)
                counts[isrc] = count
        self.sandbox.know(
            {
                isrc: KnownRecording(
                    play_count=counts[isrc],
                    title=f"Song {isrc[-3:]}",
                    artist=ARTIST,
                    album=names[0],
                    reissued_on=tuple(names[1:]),
                )
                for isrc, names in on.items()
            }
        )
        return [album(name) for name in albums]

    def request_capture(
        self,
        album_ids: Sequence[str],
        *,
        account: UUID | None = None,
        cap: str = "25",
        schedule: Schedule = Schedule.ONCE,
    ) -> CaptureTicket | OverCap:
        spec = CaptureSpec(account or self.account, tuple(sorted(album_ids)), schedule=schedule)
        with connect(self.database_url) as connection, connection.transaction():
            return captures.open_capture(connection, spec, limits=capture_limits(cap))

    def open_capture(self, album_ids: Sequence[str], **options: Any) -> UUID:
        """Open a capture within the monthly cap."""
        opened = self.request_capture(album_ids, **options)
        assert isinstance(opened, CaptureTicket)
        return opened.snapshot

    def run_capture(
        self, snapshot: UUID, *, run: str = "run-1", operator: bool = False, **options: Any
    ) -> CaptureOutcome:
        """Run a capture once as the sensor does, as an operator does, or as `launch` says."""
        captures = options.pop("captures", self.captures)
        launch = options.pop("launch", Launch.OPERATOR if operator else Launch.PLANNED)
        return make_capture(snapshot, captures, run_id=run, launch=launch, **options)

    def snapshot_row(self, snapshot: UUID) -> dict[str, Any]:
        return self.sql("select * from playcount_snapshots where id = %s", snapshot)[0]

    def actor_runs(self, snapshot: UUID) -> list[dict[str, Any]]:
        return self.sql("select * from apify_runs where snapshot = %s order by chunk, id", snapshot)

    def stored_counts(self) -> dict[str, int]:
        """ISRC → its captured count."""
        rows = self.sql("select song, value from song_measurements where data_source = 'apify_spotify_playcount'")
        assert len({row["song"] for row in rows}) == len(rows), rows
        return {row["song"]: row["value"] for row in rows}

    def actor_usage(self) -> dict[str, int]:
        """Apify's charges: runs and albums."""
        return self.sandbox.actor_usage()

    def check_invariants(self, *, at_rest: bool = True) -> None:
        with connect(self.database_url) as connection:
            result = audit(connection, max_attempts=5, at_rest=at_rest)
        breaches = [f"{one.invariant}: {breach}" for one in result for breach in one.breaches]
        assert not breaches, breaches

    def request_for(self, snapshot: UUID) -> UUID:
        """Insert a request that waits for the capture."""
        (row,) = self.sql(
            "insert into measurement_jobs (account, source, scope, state, status_code, snapshot)"
            " select %s, 'current', '{}', case state when 'failed' then 'failed' else 'accepted' end, 202, id"
            " from playcount_snapshots where id = %s returning id",
            self.account,
            snapshot,
        )
        return UUID(str(row["id"]))

    def end_waits(self) -> None:
        """End every wait of a capture."""
        self.sql("update playcount_snapshots set not_before = null")

    def wait_until_listed(self, snapshot: UUID) -> None:
        """Wait until Apify lists the run that was started for the capture."""
        albums = self.snapshot_row(snapshot)["album_ids"]
        with self.captures.dependencies.new_actor() as actor:
            wait_until(lambda: actor.find_run(albums, since=self.snapshot_row(snapshot)["created_at"]) is not None)
        self.end_waits()

    def with_config(self, **changes: Any) -> CaptureServices:
        return replace(self.captures, config=replace(self.captures.config, **changes))

    def with_vendor_timeout(self, seconds: float) -> CaptureServices:
        """Services with this timeout for requests to Apify."""
        url, token = self.sandbox.apify_url, self.sandbox.apify_token
        dependencies = replace(
            self.captures.dependencies, new_actor=lambda: ApifyClient(token, base_url=url, timeout_seconds=seconds)
        )
        return replace(self.captures, dependencies=dependencies)

    def without_spotify(self) -> CaptureServices:
        return replace(self.captures, dependencies=replace(self.captures.dependencies, new_spotify=None))


def new_harness(database_url: str, sandbox: SandboxClient) -> CaptureHarness:
    config = CaptureConfig(
        database_url=database_url,
        limits=capture_limits(),
        claim_timeout_seconds=60.0,
        max_attempts=5,
        heartbeat_seconds=0.2,
        poll_seconds=1.0,
        max_wait_seconds=120.0,
        start_timeout_seconds=2.0,
        result_settle_seconds=0.3,
    )
    dependencies = CaptureDependencies(
        new_actor=lambda: ApifyClient(sandbox.apify_token, base_url=sandbox.apify_url, timeout_seconds=60.0),
        new_spotify=lambda: SpotifyClient(
            sandbox.spotify_client_id,
            sandbox.spotify_client_secret,
            api_base=sandbox.spotify_url,
            accounts_base=sandbox.spotify_url,
            timeout_seconds=60.0,
            sleep=lambda _seconds: None,
        ),
    )
    return CaptureHarness(database_url, sandbox, CaptureServices(config, dependencies))


@pytest.fixture
def harness(database_url: str, sandbox: SandboxClient) -> CaptureHarness:
    return new_harness(database_url, sandbox)


@pytest.fixture
def custom_harness(database_url: str, request: pytest.FixtureRequest) -> Iterator[CaptureHarness]:
    """A harness whose doubles have the parametrized behaviour."""
    with running(behaviour=request.param) as opened:
        yield new_harness(database_url, opened)
