"""Known recordings, and the sample catalogue that ships with the package.

The sample is invented: titles, artists, albums, and ISRCs below AA-6Q7, the registrant that IFPI
uses in its examples and that no real recording has.
"""

import csv
from collections.abc import Mapping
from datetime import date
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from measurement_pipeline.sandbox.scenarios import Scenario

SAMPLE_CSV = Path(__file__).with_name("sample_catalogue.csv")
"""Columns isrc, title, artist, album, release_date, play_count, spotify_album_id; play_count is empty for some."""

SAMPLE_ROLES: Mapping[str, Scenario] = {
    "AA6Q72400007": Scenario.ABSENT,
    "AA6Q72400031": Scenario.LATER,
    "AA6Q72500012": Scenario.NO_SPOTIFY,
    "AA6Q72500040": Scenario.EMPTY,
    "AA6Q72600003": Scenario.ABSENT,
}

SAMPLE_REISSUES: Mapping[str, tuple[str, ...]] = {
    "AA6Q72400001": ("Cathedral of Rain (Candlelight Edition)",),
    "AA6Q72400002": ("Cathedral of Rain (Candlelight Edition)",),
}


class KnownRecording(BaseModel):
    """Facts about one recording; missing ones derive from the seed.

    Its invented history begins the day before `release_date` and has `play_count` on `Behaviour.counted_on`. Without `artist` and
    `album` it is on no album. `reissued_on`: further albums of the artist with this recording.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    play_count: int | None = Field(default=None, ge=0)
    release_date: date | None = None
    title: str | None = None
    artist: str | None = None
    album: str | None = None
    reissued_on: tuple[str, ...] = ()
    role: Scenario | None = None


CATALOGUE: TypeAdapter[dict[str, KnownRecording]] = TypeAdapter(dict[str, KnownRecording])
"""Reads a catalogue from JSON: `{isrc: {play_count, release_date, …}}`."""


def sample_catalogue() -> dict[str, KnownRecording]:
    """The sample catalogue: a few recordings have unusual histories, all others a complete one."""
    with SAMPLE_CSV.open(encoding="utf-8", newline="") as file:
        return {line["isrc"]: _known(line) for line in csv.DictReader(file)}


def _known(line: Mapping[str, str]) -> KnownRecording:
    fields = ("play_count", "release_date", "title", "artist", "album")
    return KnownRecording.model_validate(
        {
            **{name: line.get(name) or None for name in fields},
            "role": SAMPLE_ROLES.get(line["isrc"], Scenario.PLAIN),
            "reissued_on": SAMPLE_REISSUES.get(line["isrc"], ()),
        }
    )
