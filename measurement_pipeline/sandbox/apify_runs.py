"""Actor runs at Apify: start, planned end and items. The routes are in `apify_double`.

A run is READY, then RUNNING, then has its planned final status. A failed run has some of the items.
"""

import secrets
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field

from measurement_pipeline.sandbox.albums import Discography, SandboxAlbum
from measurement_pipeline.sandbox.memory import Memory
from measurement_pipeline.sandbox.scenarios import Behaviour

Object = dict[str, Any]

_ENDING = {"TIMED-OUT": "TIMING-OUT", "ABORTED": "ABORTING"}
_MESSAGES = {
    "SUCCEEDED": "Finished: all albums were captured",
    "FAILED": "The Actor process failed: Spotify blocked the proxy",
    "TIMED-OUT": "The Actor run has exceeded its timeout",
    "ABORTED": "The Actor run was aborted",
}


class PlannedEnd(BaseModel):
    """Final status of the next runs. `seconds` overrides `Behaviour.actor_seconds`; `count` None: until changed."""

    model_config = ConfigDict(extra="forbid", strict=True)

    ends: Literal["SUCCEEDED", "FAILED", "TIMED-OUT", "ABORTED"] = "SUCCEEDED"
    message: str | None = None
    seconds: float | None = Field(default=None, ge=0)
    count: int | None = Field(default=None, ge=1)


class SandboxActorRun(BaseModel):
    """One run."""

    model_config = ConfigDict(frozen=True)

    id: str
    albums: tuple[str, ...]
    input_text: str
    """Body of the request that started it, one byte per character."""
    input_type: str
    started_at: datetime
    seconds: float
    ends: str
    message: str

    @property
    def input_body(self) -> bytes:
        """Body of the request that started it."""
        return self.input_text.encode("latin-1")

    @property
    def ends_at(self) -> datetime:
        """When it comes to its end."""
        return self.started_at + timedelta(seconds=self.seconds)

    @property
    def dataset_id(self) -> str:
        """Dataset of its items."""
        return f"ds{self.id[2:]}"

    @property
    def store_id(self) -> str:
        """Where it keeps its input."""
        return f"kv{self.id[2:]}"

    def status(self, now: datetime) -> str:
        """Where it stands."""
        age = (now - self.started_at).total_seconds()
        if age >= self.seconds:
            return self.ends
        if age < self.seconds * 0.2:
            return "READY"
        return "RUNNING" if age < self.seconds * 0.8 else _ENDING.get(self.ends, "RUNNING")


class ApifyRuns:
    """All actor runs and their cost."""

    def __init__(
        self, behaviour: Behaviour, discography: Discography, clock: Callable[[], datetime], memory: Memory
    ) -> None:
        self._behaviour = behaviour
        self._discography = discography
        self._clock = clock
        self._runs = memory.table("apify runs")
        self._orders: list[PlannedEnd] = []

    def order(self, orders: PlannedEnd) -> None:
        """Plan the end of the next runs, after the earlier plans, or instead of a plan without a count."""
        self._orders = [earlier for earlier in self._orders if earlier.count is not None]
        self._orders.append(orders)

    def start(self, urls: list[str], input_body: bytes, input_type: str) -> SandboxActorRun:
        """Start a run. Each run is billed, also for albums captured before."""
        orders = self._next_orders()
        run = SandboxActorRun(
            # Random instead of seeded, because a database may hold ids from earlier doubles.
            id=f"ru{secrets.token_hex(8)[:15]}",
            albums=tuple(filter(None, map(_album_id, urls))),
            input_text=input_body.decode("latin-1"),
            input_type=input_type,
            started_at=self._clock(),
            seconds=self._behaviour.actor_seconds if orders.seconds is None else orders.seconds,
            ends=orders.ends,
            message=orders.message or _MESSAGES[orders.ends],
        )
        self._runs[run.id] = run.model_dump(mode="json")
        return run

    def run(self, identity: str) -> SandboxActorRun | None:
        """A run by its own id or the id of its dataset or key-value store."""
        found = self._runs.get(f"ru{identity[2:]}")
        return None if found is None else SandboxActorRun.model_validate(found)

    def newest_first(self) -> list[SandboxActorRun]:
        """The runs that are listed at this moment."""
        listed = self._clock() - timedelta(seconds=self._behaviour.listing_lag)
        return [run for run in reversed(self._all()) if run.started_at <= listed]

    def usage(self) -> dict[str, int]:
        """What was paid for."""
        runs = self._all()
        return {"runs": len(runs), "albums": sum(len(run.albums) for run in runs)}

    def _all(self) -> list[SandboxActorRun]:
        return [SandboxActorRun.model_validate(run) for run in self._runs.documents()]

    def found(self, run: SandboxActorRun) -> int:
        """The number of items that a run reports at this moment."""
        if self._behaviour.dataset_count_lags:
            return len(self.items(run))
        return self._found(run)

    def _found(self, run: SandboxActorRun) -> int:
        done = self._clock() >= run.ends_at
        return len(run.albums) if done and run.ends == "SUCCEEDED" else len(run.albums) // 2 if done else 0

    def items(self, run: SandboxActorRun) -> list[Object]:
        """The visible items of a run; the last ones appear late."""
        found = self._found(run)
        late = self._clock() < run.ends_at + timedelta(seconds=self._behaviour.dataset_lag)
        return [self._item(album, run.started_at) for album in run.albums[: found // 2 if late else found]]

    def _next_orders(self) -> PlannedEnd:
        if not self._orders:
            return PlannedEnd()
        orders = self._orders[0]
        if orders.count == 1:
            del self._orders[0]
        elif orders.count is not None:
            self._orders[0] = orders.model_copy(update={"count": orders.count - 1})
        return orders

    def _item(self, identity: str, at: datetime) -> Object:
        album = self._discography.album(identity)
        item: Object = {"id": identity, "name": "", "label": None, "copyright": [], "tracks": []}
        if album is not None:
            label = f"{album.artist} Recordings"
            item |= {"name": album.name, "label": label, "copyright": [f"℗ {label}"], "tracks": self._tracks(album, at)}
        if self._behaviour.draw(identity, "id") < self._behaviour.items_without_id:
            del item["id"]
        return item

    def _tracks(self, album: SandboxAlbum, at: datetime) -> list[Object]:
        tracks = []
        for track in album.tracks:
            draw, share = self._behaviour.draw(track.id, "streamCount"), self._behaviour.tracks_without_count
            count = self._discography.play_count(track.isrc, at)
            entry: Object = {"id": track.id, "name": track.title, "duration": 150_000 + int(draw * 120_000)}
            if draw >= share and count is not None:
                entry["streamCount"] = 0 if draw < 2 * share else count
            tracks.append(entry)
        return tracks


def _album_id(url: str) -> str | None:
    """The album id in a URL, or None."""
    parts = urlsplit(url).path.strip("/").split("/")
    return unquote(parts[-1]) if len(parts) > 1 and parts[-2] == "album" else None
