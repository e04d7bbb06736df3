"""Behaviour of the doubles: keys, delays, and the shares of unusual recordings. Fixed at the start.

Temporary errors are in `faults`, facts about single recordings in `catalogue`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from hashlib import blake2b


class Scenario(StrEnum):
    """What Songstats returns for a recording."""

    PLAIN = "plain"
    ABSENT = "absent"
    """404 for every request."""
    LATER = "later"
    """404 for the first `Behaviour.discovered_after` requests, then its history."""
    NO_SPOTIFY = "no_spotify"
    """200 without an entry for spotify."""
    EMPTY = "empty"
    """200 with an entry for spotify whose history has no points."""


@dataclass(frozen=True, slots=True)
class Behaviour:
    """Behaviour of the doubles. The defaults are as irregular as the vendors; `PLAIN` has no irregularities.

    Times are in seconds. Shares are of recordings unless stated otherwise, from 0 to 1, drawn by seed and ISRC.
    """

    seed: str = "sandbox"

    songstats_key: str = "sandbox-songstats-key"
    stripe_key: str = "sk_test_sandbox"
    apify_token: str = "sandbox-apify-token"  # noqa: S105  # it opens nothing
    spotify_client_id: str = "sandbox-spotify-client"
    spotify_client_secret: str = "sandbox-spotify-secret"  # noqa: S105  # it opens nothing
    artist_id: str | None = None
    """If set, the key belongs to an artist, and history requests without this `songstats_artist_id` are rejected."""

    latency: float = 0.0
    """Added to every response of a vendor's API."""
    search_lag: float = 0.5
    """Delay until Stripe's search shows a new or changed customer."""
    searches_per_second: int = 20
    """Stripe's limit, above which search returns 429; 0 for none."""

    absent: float = 0.01
    later: float = 0.01
    no_spotify: float = 0.005
    empty: float = 0.005
    roles: Mapping[str, Scenario] = field(default_factory=dict)
    """Scenario of single recordings, by ISRC."""
    discovered_after: int = 1

    counts_as_text: float = 0.15
    """Every count of the recording is a string such as "296422273.0"."""
    gaps: float = 0.1
    """About one day in fifty lacks its count or has null for it."""
    falls: float = 0.05
    bare: float = 0.1
    """Responses without `track_info` and `source_ids`."""

    points: int | None = None
    """Points per recording up to `counted_on`, plus one for each day since. None: from the day before release."""
    counted_on: date = date(2026, 9, 22)
    """Day of a catalogue's counts: on that day a history has its `play_count`."""
    last_day: date | None = None
    """Last day of every history and of the displayed counts. None: yesterday (UTC) for histories, today for displayed counts."""
    tracked_since: date | None = date(2024, 1, 1)
    """First day of histories of older recordings, with that day's count. None: all histories are complete."""

    actor_seconds: float = 1.5
    """Duration of an actor run, unless its planned end sets another one."""
    dataset_lag: float = 0.5
    """Delay after a run's end until its last items are visible, although they are counted."""
    dataset_count_lags: bool = False
    """They are not counted either."""
    listing_lag: float = 0.0
    """Delay after a run's start until it appears in the list of runs."""
    items_without_id: float = 0.1
    """Share of albums whose item does not name its album."""
    tracks_without_count: float = 0.03
    """Share of tracks without `streamCount`; the same share has 0, which means not captured."""

    spotify_batches: bool = False
    """Whether several tracks may be requested at once. An app in development mode gets 403."""
    spotify_token_seconds: int = 3600
    tracks_without_isrc: float = 0.005
    """Share of tracks that Spotify knows without an ISRC."""

    def environment(self, url: str) -> dict[str, str]:
        """The environment variables that make a process use the doubles at `url`."""
        return {
            "SONGSTATS_BASE_URL": url,
            "STRIPE_API_BASE": url,
            "SONGSTATS_API_KEY": self.songstats_key,
            "STRIPE_SECRET_KEY": self.stripe_key,
            "APIFY_BASE_URL": url,
            "APIFY_TOKEN": self.apify_token,
            "SPOTIFY_API_BASE": url,
            "SPOTIFY_ACCOUNTS_BASE": url,
            "SPOTIFY_CLIENT_ID": self.spotify_client_id,
            "SPOTIFY_CLIENT_SECRET": self.spotify_client_secret,
        }

    def history_until(self, now: datetime) -> date:
        """The last day of a history requested at `now`."""
        return self.last_day or (now - timedelta(days=1)).date()

    def displayed_on(self, now: datetime) -> date:
        """The day whose counts Spotify displays at `now`."""
        return self.last_day or now.date()

    def role(self, isrc: str) -> Scenario:
        """The scenario of a recording, fixed or drawn."""
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
"""No irregularities: usable histories, no search delay, and actor runs that end at once.

Figures stay at the day of the catalogue's counts, so that tests and benchmarks get the same ones on every day.
"""


def utc_now() -> datetime:
    """The default clock of the doubles."""
    return datetime.now(UTC)
