"""How the doubles behave: keys, delays, and the shares of recordings that are awkward.

What is chosen here is chosen once, at start. What goes wrong for a while is a fault (`faults`);
what is known of one recording is the catalogue (`catalogue`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from hashlib import blake2b


class Scenario(StrEnum):
    """What Songstats has for a recording."""

    PLAIN = "plain"
    ABSENT = "absent"
    """404, however often it is asked."""
    LATER = "later"
    """404 for the first `Behaviour.discovered_after` requests, its history from then on."""
    NO_SPOTIFY = "no_spotify"
    """200 without an entry for spotify."""
    EMPTY = "empty"
    """200 with an entry for spotify whose history has no points."""


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What the doubles are like. The defaults are as awkward as the vendors; `PLAIN` is the rest.

    Times are in seconds. Shares are of recordings where nothing else is said, from 0 to 1, drawn by seed and ISRC.
    """

    seed: str = "sandbox"

    songstats_key: str = "sandbox-songstats-key"
    stripe_key: str = "sk_test_sandbox"
    apify_token: str = "sandbox-apify-token"  # noqa: S105  # it opens nothing
    spotify_client_id: str = "sandbox-spotify-client"
    spotify_client_secret: str = "sandbox-spotify-secret"  # noqa: S105  # it opens nothing
    artist_id: str | None = None
    """Set: the key is an artist's, and histories without this `songstats_artist_id` are refused."""

    latency: float = 0.0
    """Added to every answer of a vendor's API."""
    search_lag: float = 0.5
    """How long a customer that was written stays invisible, or stale, to Stripe's search."""
    searches_per_second: int = 20
    """Stripe's own limit, beyond which search answers 429; 0 for none."""

    absent: float = 0.01
    later: float = 0.01
    no_spotify: float = 0.005
    empty: float = 0.005
    roles: Mapping[str, Scenario] = field(default_factory=dict)
    """Recordings whose role is fixed, by ISRC."""
    discovered_after: int = 1

    counts_as_text: float = 0.15
    """Every count of the recording is a string such as "296422273.0"."""
    gaps: float = 0.1
    """About one day in fifty lacks its count or has null for it."""
    falls: float = 0.05
    bare: float = 0.1
    """Answers without `track_info` and `source_ids`."""

    points: int | None = None
    """So many points a recording up to `counted_on`, and one for each day since. None: from the day before release."""
    counted_on: date = date(2026, 9, 22)
    """The day whose counts a catalogue has: a history passes its `play_count` on that day."""
    last_day: date | None = None
    """The last day of every history, and of what Spotify displays. None: yesterday in UTC, and today's counts are displayed."""
    tracked_since: date | None = date(2024, 1, 1)
    """Histories of older recordings begin here, at that day's count. None: all are whole."""

    actor_seconds: float = 1.5
    """How long a run of Apify's actor takes, unless it is told to end otherwise."""
    dataset_lag: float = 0.5
    """How long after its end a run's last items stay invisible, although they are counted."""
    dataset_count_lags: bool = False
    """They are not counted either."""
    listing_lag: float = 0.0
    """How long after its start a run is missing from the list of runs."""
    items_without_id: float = 0.1
    """Share of albums whose item does not say which album it is."""
    tracks_without_count: float = 0.03
    """Share of tracks without `streamCount`; as many again have 0, which means that none was captured."""

    spotify_batches: bool = False
    """Whether several tracks may be asked for at once: an app in development mode gets 403."""
    spotify_token_seconds: int = 3600
    tracks_without_isrc: float = 0.005
    """Share of tracks that Spotify knows without an ISRC."""

    def history_until(self, now: datetime) -> date:
        """The last day of a history that is asked for at `now`."""
        return self.last_day or (now - timedelta(days=1)).date()

    def displayed_on(self, now: datetime) -> date:
        """The day whose counts Spotify displays at `now`."""
        return self.last_day or now.date()

    def role(self, isrc: str) -> Scenario:
        """The role of a recording, fixed or drawn."""
        if isrc in self.roles:
            return self.roles[isrc]
        draw = self.draw(isrc, "role")
        for role, share in (
            (Scenario.ABSENT, self.absent),
            (Scenario.LATER, self.later),
            (Scenario.NO_SPOTIFY, self.no_spotify),
            (Scenario.EMPTY, self.empty),
        ):
            if draw < share:
                return role
            draw -= share
        return Scenario.PLAIN

    def draw(self, of: str, purpose: str) -> float:
        """A number in [0, 1), the same in any process for the same seed, ISRC (or album, or track) and purpose."""
        digest = blake2b(f"{self.seed}:{of}:{purpose}".encode(), digest_size=6).digest()
        return int.from_bytes(digest) / 2**48


PLAIN = Behaviour(
    last_day=Behaviour().counted_on,
    search_lag=0,
    absent=0,
    later=0,
    no_spotify=0,
    empty=0,
    counts_as_text=0,
    gaps=0,
    falls=0,
    bare=0,
    actor_seconds=0,
    dataset_lag=0,
    items_without_id=0,
    tracks_without_count=0,
    spotify_batches=True,
    tracks_without_isrc=0,
)
"""Nothing awkward: every recording has a history of usable numbers, search sees at once, and a run of the actor ends at once.

The vendors' figures stand still on the day of the catalogue's counts, so that tests and benchmarks get the same ones on any day.
"""


def utc_now() -> datetime:
    """The clock that the doubles run on unless they are handed another."""
    return datetime.now(UTC)
