"""What a capture came to, from its runs of the actor. Pure."""

from collections.abc import Collection, Sequence
from enum import StrEnum

from measurement_pipeline.domain.text import counted
from measurement_pipeline.postgres.apify_runs import GONE, MALFORMED, ActorRunRow

_SHOWN = 10


class CaptureResultKind(StrEnum):
    """How a run's work on a capture ended.

    `STOPPED`: nothing is lost, it goes on by itself, and an operator has to act. `NOT_FOUND`: it failed, and its client has to.
    """

    DONE = "done"
    PARTLY_DONE = "done in part"
    ALREADY_DONE = "done before"
    FAILED = "failed"
    NOT_FOUND = "not found"
    TRY_AGAIN = "try again"
    POSTPONED = "put off"
    UNCHANGED = "left alone"
    STOPPED = "stopped"


def determine_result(
    bought: Collection[ActorRunRow], *, known_albums: Collection[str], last_try: bool
) -> tuple[CaptureResultKind, str | None]:
    """What became of a capture of whose parts each is over, and what is to be said of it.

    Albums without a track and tracks without an ISRC are said; parts that failed are tried again, then said; where nothing at all
    was captured, it failed. Where none of its albums is among `known_albums`, those that a recording is known of, there are no
    such albums; an album that is known and brings no track is the actor's fault.
    """
    failed = [one for one in bought if not one.is_mapped]
    mapped = [one for one in bought if one.is_mapped]
    words = list(dict.fromkeys(_why(one) for one in failed))
    if mapped and not any(one.tracks for one in mapped):
        named = _named([album for one in mapped for album in one.album_ids])
        kind = CaptureResultKind.FAILED if failed or known_albums else CaptureResultKind.NOT_FOUND
        return kind, "; ".join([f"no track was found on {named}", *words])
    if not mapped:
        return CaptureResultKind.FAILED, "; ".join(words)
    if all(one.without_count == one.tracks for one in mapped):
        # Some tracks are always without one; all of them are so where the actor reads a page that has changed.
        of_all = counted(sum(one.tracks for one in mapped), "track")
        return CaptureResultKind.FAILED, "; ".join([f"none of {of_all} has a count", *words])
    if failed and not last_try and any(one.status != MALFORMED for one in failed):
        return CaptureResultKind.TRY_AGAIN, "; ".join(words)
    said = [f"{_albums(failed)} of {_albums(bought)} could not be captured: {'; '.join(words)}"] if failed else []
    without_track = sum(len(one.album_ids) - one.albums for one in mapped)
    if without_track > 0:
        said.append(f"{without_track:,} of {_albums(mapped)} brought no track")
    unmapped, tracks = sum(one.unmapped for one in mapped), sum(one.tracks for one in mapped)
    if unmapped:
        said.append(f"{unmapped:,} of {counted(tracks, 'track')} could not be matched with a recording")
    return CaptureResultKind.PARTLY_DONE if failed else CaptureResultKind.DONE, "; ".join(said) or None


def _named(album_ids: Sequence[str]) -> str:
    shown = ", ".join(album_ids[:_SHOWN]) + (" …" if len(album_ids) > _SHOWN else "")
    return f"{counted(len(album_ids), 'album')} ({shown})"


def _albums(bought: Collection[ActorRunRow]) -> str:
    return counted(sum(len(one.album_ids) for one in bought), "album")


def _why(bought: ActorRunRow) -> str:
    if bought.status == MALFORMED:
        return f"what run {bought.actor_run} brought cannot be read ({bought.message}); it is kept"
    if bought.status == GONE:
        return f"run {bought.actor_run} of the actor is not known to Apify any more"
    return f"run {bought.actor_run} of the actor ended as {bought.status}" + (
        f": {bought.message}" if bought.message else ""
    )
