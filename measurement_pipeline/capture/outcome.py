"""The result of a capture, computed from its actor runs. Pure."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import Any

from measurement_pipeline.domain.text import counted
from measurement_pipeline.postgres.apify_runs import GONE, MALFORMED, ActorRunRow

_MAX_ALBUMS_SHOWN = 10


class CaptureResultKind(StrEnum):
    """How a run's work on a capture ended.

    `STOPPED`: nothing is lost and the capture continues by itself, but an operator has to act. `NOT_FOUND`: the capture failed
    because of its request, so the client has to act.
    """

    DONE = "done"
    PARTLY_DONE = "partly done"
    ALREADY_DONE = "already done"
    FAILED = "failed"
    NOT_FOUND = "not found"
    TRY_AGAIN = "try again"
    POSTPONED = "postponed"
    UNCHANGED = "unchanged"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class CaptureOutcome:
    """What a run did with a capture. `row`: the capture's row afterwards. `paid_usd`: what this run paid.

    `unmapped`: tracks without an ISRC.
    """

    kind: CaptureResultKind
    reason: str | None = None
    row: dict[str, Any] = field(default_factory=dict)
    paid_usd: Decimal = Decimal(0)
    unmapped: tuple[str, ...] = ()


def determine_result(
    runs: Collection[ActorRunRow], *, known_albums: Collection[str], is_last_try: bool
) -> tuple[CaptureResultKind, str | None]:
    """The result of a capture whose chunks are all finished, and a message about what is missing.

    The message names albums without tracks and tracks without an ISRC. Failed chunks are tried again, then named. A capture
    without any count has failed. If none of its albums is in `known_albums`, the albums with a known recording, the albums do not
    exist. A known album without tracks is the actor's fault.
    """
    failed = [run for run in runs if not run.is_mapped]
    mapped = [run for run in runs if run.is_mapped]
    failures = list(dict.fromkeys(_describe_failure(run) for run in failed))
    if mapped and not any(run.tracks for run in mapped):
        albums = _list_albums([album for run in mapped for album in run.album_ids])
        kind = CaptureResultKind.FAILED if failed or known_albums else CaptureResultKind.NOT_FOUND
        return kind, "; ".join([f"no track was found on {albums}", *failures])
    if not mapped:
        return CaptureResultKind.FAILED, "; ".join(failures)
    if all(run.without_count == run.tracks for run in mapped):
        # Some tracks never have a count. If none has one, the actor reads a page whose format has changed.
        all_tracks = counted(sum(run.tracks for run in mapped), "track")
        return CaptureResultKind.FAILED, "; ".join([f"none of {all_tracks} has a count", *failures])
    if failed and not is_last_try and any(run.status != MALFORMED for run in failed):
        return CaptureResultKind.TRY_AGAIN, "; ".join(failures)
    missing = []
    if failed:
        missing.append(f"{_count_albums(failed)} of {_count_albums(runs)} could not be captured: {'; '.join(failures)}")
    without_tracks = sum(len(run.album_ids) - run.albums for run in mapped)
    if without_tracks > 0:
        missing.append(f"{without_tracks:,} of {_count_albums(mapped)} had no tracks")
    unmapped, tracks = sum(run.unmapped for run in mapped), sum(run.tracks for run in mapped)
    if unmapped:
        missing.append(f"{unmapped:,} of {counted(tracks, 'track')} could not be matched with a recording")
    return CaptureResultKind.PARTLY_DONE if failed else CaptureResultKind.DONE, "; ".join(missing) or None


def _list_albums(album_ids: Sequence[str]) -> str:
    shown = ", ".join(album_ids[:_MAX_ALBUMS_SHOWN]) + (" …" if len(album_ids) > _MAX_ALBUMS_SHOWN else "")
    return f"{counted(len(album_ids), 'album')} ({shown})"


def _count_albums(runs: Collection[ActorRunRow]) -> str:
    return counted(sum(len(run.album_ids) for run in runs), "album")


def _describe_failure(run: ActorRunRow) -> str:
    if run.status == MALFORMED:
        return f"the result of actor run {run.actor_run} cannot be read ({run.message}); it is stored"
    if run.status == GONE:
        return f"Apify no longer has actor run {run.actor_run}"
    return f"actor run {run.actor_run} ended as {run.status}" + (f": {run.message}" if run.message else "")
