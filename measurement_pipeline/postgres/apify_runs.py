"""Actor runs of a capture: intent, start, result and mapping. The statements are in `apify_runs.sql`."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from hashlib import sha256
from uuid import UUID

from psycopg.errors import UniqueViolation
from psycopg.types.json import Jsonb

from measurement_pipeline.domain.capture import CaptureCounts, SpotifyTrack
from measurement_pipeline.domain.purchase_pause import PurchasePause
from measurement_pipeline.postgres import purchase_pauses, songs
from measurement_pipeline.postgres.database import Connection, fetch_row
from measurement_pipeline.postgres.sql import statements

_SQL = statements("apify_runs")

NOT_STARTED = "NOT-STARTED"
MALFORMED = "MALFORMED"
GONE = "GONE"


@dataclass(frozen=True, slots=True)
class ActorRunRow:
    """The latest actor run of one chunk. `status` is None until Apify confirms the start.

    `is_superseded`: it returned nothing, and an operator requested another run. The counts are set when the
    result is mapped: `albums` with a track, `tracks`, of which `without_count` and `unmapped`.
    `seconds_since_seen`: since Apify last listed the run.
    """

    id: int
    chunk: int
    album_ids: tuple[str, ...]
    intended_at: datetime
    age_seconds: float
    seconds_since_seen: float
    actor_run: str | None
    status: str | None
    message: str | None
    has_result: bool
    is_mapped: bool
    is_superseded: bool
    albums: int
    tracks: int
    without_count: int
    unmapped: int


class CaptureLostError(Exception):
    """Another Dagster run owns the capture; nothing was written."""


class PurchasesPausedError(Exception):
    """An operator has paused purchases; nothing was written."""

    def __init__(self, pause: PurchasePause) -> None:
        super().__init__(f"{pause.cause} {pause.next_step}")


def list_latest_runs(connection: Connection, snapshot: UUID) -> dict[int, ActorRunRow]:
    """The latest actor run of each chunk that has one."""
    rows = connection.execute(_SQL["of_snapshot"], {"snapshot": snapshot})
    return {row["chunk"]: ActorRunRow(**{**row, "album_ids": tuple(row["album_ids"])}) for row in rows}


def record_intent(
    connection: Connection, snapshot: UUID, chunk: int, album_ids: Sequence[str], *, cost_usd: Decimal, run: str
) -> int:
    """Insert the row of an actor run before it is started; return its id.

    Raises `CaptureLostError`, and `PurchasesPausedError` while an operator's pause stops starts for the account.
    """
    parameters = {
        "snapshot": snapshot,
        "chunk": chunk,
        "album_ids": list(album_ids),
        "cost": cost_usd,
        "run": run,
    }
    try:
        with connection.transaction():
            connection.execute(_SQL["lock_starts"])
            pause = purchase_pauses.of_capture(connection, snapshot)
            if pause is not None:
                raise PurchasesPausedError(pause)
            row = connection.execute(_SQL["intend"], parameters).fetchone()
    except UniqueViolation as error:
        raise CaptureLostError(f"chunk {chunk} of capture {snapshot} already has an actor run") from error
    if row is None:
        raise CaptureLostError(f"run {run} does not own capture {snapshot}")
    return int(row["id"])


def list_recorded_runs(connection: Connection, *, since: datetime) -> frozenset[str]:
    """Ids of actor runs that belong to a row, of about `since` or later."""
    rows = connection.execute(_SQL["taken"], {"since": since})
    return frozenset(row["actor_run"] for row in rows)


def record_start(connection: Connection, row: int, *, actor_run: str, status: str) -> None:
    """Store the id of the actor run of `row`. Raises `CaptureLostError`, after it stored a second run as surplus."""
    try:
        found = connection.execute(_SQL["started"], {"id": row, "actor_run": actor_run, "status": status}).fetchone()
    except UniqueViolation as error:
        if error.diag.constraint_name == "apify_runs_one_a_chunk":
            connection.execute(_SQL["surplus"], {"id": row, "actor_run": actor_run})
        raise CaptureLostError(f"actor run {actor_run} is a second run of its chunk") from error
    if found is None:
        raise CaptureLostError(f"row {row} already has an actor run")


def record_not_started(connection: Connection, row: int, *, message: str) -> None:
    """Record that the actor was never started for `row`, so that another run may be."""
    connection.execute(_SQL["not_started"], {"id": row, "message": message})


def record_status(
    connection: Connection,
    row: int,
    *,
    status: str,
    message: str | None,
    finished_at: datetime | None,
    cost_usd: Decimal | None = None,
) -> None:
    """Store the current status of the actor run of `row`. `cost_usd`: the cost that it reports; None: the expected one stays."""
    parameters = {"id": row, "status": status, "message": message, "finished_at": finished_at, "cost": cost_usd}
    connection.execute(_SQL["seen"], parameters)


def store_result(connection: Connection, row: int, body: bytes) -> None:
    """Store the result of the actor run of `row` as received; a second call changes nothing."""
    connection.execute(_SQL["keep"], {"id": row, "body": body, "sha256": sha256(body).hexdigest()})


def get_result(connection: Connection, row: int) -> bytes:
    """The stored result of `row`."""
    found = connection.execute(_SQL["body"], {"id": row}).fetchone()
    if found is None or found["body"] is None:
        raise LookupError(f"apify_runs {row} has no result")
    return bytes(found["body"])


def reset_mapping(connection: Connection, snapshot: UUID) -> None:
    """Mark the stored results of a capture for mapping again. No vendor is called."""
    connection.execute(_SQL["map_again"], {"snapshot": snapshot})


def supersede(connection: Connection, snapshot: UUID) -> None:
    """Allow another purchase of the chunks whose actor run failed."""
    connection.execute(_SQL["supersede"], {"snapshot": snapshot})


def cost_of_run(connection: Connection, snapshot: UUID, *, run: str) -> Decimal:
    """Cost of the actor runs that a Dagster run started for a capture, in US dollars."""
    return Decimal(fetch_row(connection, _SQL["paid_by"], snapshot=snapshot, run=run)["usd"])


def record_malformed(connection: Connection, row: int, *, message: str) -> None:
    """Record that the stored result of `row` is unreadable."""
    connection.execute(_SQL["malformed"], {"id": row, "message": message})


def songs_of_tracks(connection: Connection, track_ids: Iterable[str]) -> dict[str, list[str]]:
    """The recordings of these Spotify track ids."""
    found: dict[str, list[str]] = {}
    for row in connection.execute(_SQL["songs_of_tracks"], {"track_ids": list(track_ids)}):
        found.setdefault(row["track_id"], []).append(row["song"])
    return found


def store_tracks(connection: Connection, tracks: Mapping[str, SpotifyTrack]) -> None:
    """Store looked-up tracks as songs, with the ids that were requested. A track without an ISRC is not stored."""
    met = {track.isrc: track for track in tracks.values() if track.isrc is not None}
    connection.execute(
        _SQL["merge_songs"],
        {
            "isrcs": list(met),
            "names": [track.name for track in met.values()],
            "artists": [track.artist for track in met.values()],
            "albums": [track.album for track in met.values()],
            "release_dates": [track.release_date for track in met.values()],
        },
    )
    store_identifiers(
        connection, [(track.isrc, asked) for asked, track in tracks.items() if track.isrc is not None], kind="track_id"
    )


def store_identifiers(connection: Connection, identifiers: Sequence[tuple[str, str]], *, kind: str) -> None:
    """Store Spotify ids of known recordings: (ISRC, id) pairs."""
    songs.store_identifiers(connection, sorted(identifiers), platform="spotify", identifier_type=kind)


def list_unmapped(connection: Connection, snapshot: UUID, *, limit: int = 50) -> tuple[str, ...]:
    """The tracks of a capture without a recording, with the reason, most played first."""
    rows = connection.execute(_SQL["unmapped"], {"snapshot": snapshot, "limit": limit})
    return tuple(f"{row['name'] or 'untitled'} ({row['track_id']}): {row['why']}" for row in rows)


def store_measurements(connection: Connection, row: int, measured: CaptureCounts, *, snapshot: UUID, run: str) -> None:
    """Store measurements, albums, ranks and totals of one chunk in one transaction. Raises `CaptureLostError`."""
    with connection.transaction():
        if connection.execute(_SQL["hold"], {"snapshot": snapshot, "run": run}).fetchone() is None:
            raise CaptureLostError(f"run {run} does not own capture {snapshot} any more")
        store_identifiers(connection, list(measured.albums), kind="album_id")
        counted = sorted(measured.counts.items())
        songs_measured = [song for song, _ in counted]
        connection.execute(
            _SQL["measure"], {"id": row, "songs": songs_measured, "values": [count for _, count in counted]}
        )
        songs.refresh_ranks(connection, songs_measured)
        connection.execute(
            _SQL["mapped"],
            {
                "id": row,
                "albums": measured.albums_with_tracks,
                "tracks": measured.tracks,
                "recordings": len(counted),
                "without_count": measured.without_count,
                "unmapped": Jsonb(
                    [
                        {
                            "track_id": one.track_id,
                            "name": one.name,
                            "count": one.stream_count,
                            "why": one.why,
                            "deferred": one.is_deferred,
                        }
                        for one in measured.unmapped
                    ]
                ),
            },
        )
