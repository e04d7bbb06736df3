"""A request gets the same answer as a row of the table and over HTTP: one list of requests, each submitted both ways."""

import json
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from measurement_pipeline.intake.process import check_payments, load_batch, process_batch
from measurement_pipeline_tests.api.conftest import JOBS, RunningApi
from measurement_pipeline_tests.intake.conftest import isrcs

ALBUM = "0ETFjACtuP2ADo6LFhL6HN"
CATALOG = "the account's own"
FOREIGN_CATALOG = "another account's"

Request = tuple[object, object]

REQUESTS: dict[str, Request] = {
    "recordings": ("historical", {"isrcs": isrcs(3)}),
    "recordings in other spellings": (
        "historical",
        {"isrcs": ["aa-6q7-20-00001", "ISRC AA6Q72000001", " AA6Q72000002 "]},
    ),
    "an album": ("historical", {"album_ids": [ALBUM]}),
    "a catalogue": ("historical", {"catalog_id": CATALOG}),
    "a null beside it": ("historical", {"catalog_id": CATALOG, "isrcs": None}),
    "a capture of an album": ("current", {"album_ids": [ALBUM, "1ETFjACtuP2ADo6LFhL6HN"]}),
    "a capture of a recording": ("current", {"isrcs": isrcs(1)}),
    "a capture of a recording on no album": ("current", {"isrcs": isrcs(1, start=99)}),
    "a capture of a catalogue": ("current", {"catalog_id": CATALOG}),
    "no source": (None, {"isrcs": isrcs(1)}),
    "another source": ("future", {"isrcs": isrcs(1)}),
    "a source that is a query": ("historical' or '1'='1", {"isrcs": isrcs(1)}),
    "no scope": ("historical", None),
    "an empty scope": ("historical", {}),
    "two scopes": ("historical", {"isrcs": isrcs(1), "album_ids": [ALBUM]}),
    "an unknown scope": ("historical", {"artist": "x"}),
    "an unknown key beside it": ("historical", {"isrcs": isrcs(1), "limit": 1}),
    "a scope that is a list": ("historical", isrcs(1)),
    "a scope that is text": ("historical", "isrcs"),
    "no recordings": ("historical", {"isrcs": []}),
    "a recording that is none": ("historical", {"isrcs": ["GBUM7250189"]}),
    "recordings that are numbers": ("historical", {"isrcs": [1, 2.5, True, None, {"a": []}]}),
    "a recording that is SQL": ("historical", {"isrcs": ["'; drop table measurement_jobs; --"]}),
    "an album that is a search of Stripe's": ("historical", {"album_ids": ["' OR metadata['accountId']:'x"]}),
    "an album that is SQL": ("current", {"album_ids": ["{a},'); delete from songs; --"]}),
    "an unknown album": ("historical", {"album_ids": ["nothing"]}),
    "an album that is blank": ("historical", {"album_ids": ["  "]}),
    "another account's catalogue": ("historical", {"catalog_id": FOREIGN_CATALOG}),
    "a capture of another account's catalogue": ("current", {"catalog_id": FOREIGN_CATALOG}),
    "a catalogue that is no id": ("historical", {"catalog_id": "1 or 1=1"}),
    "a catalogue that is a number": ("historical", {"catalog_id": 7}),
}


def create_catalogs(api: RunningApi, account: UUID) -> dict[str, str]:
    """Create a catalogue of the account, one of another account, and an album. Return the ids for the names in the list."""
    own = api.table.catalogue(isrcs(5), account=account)
    foreign = api.table.catalogue(isrcs(2), account=uuid4())
    api.table.sql(
        "insert into song_identifiers (song, platform, identifier_type, value)"
        " select unnest(%s::text[]), 'spotify', 'album_id', %s on conflict do nothing",
        isrcs(2),
        ALBUM,
    )
    return {CATALOG: str(own), FOREIGN_CATALOG: str(foreign)}


def replace_names(scope: object, names: dict[str, str]) -> object:
    if not isinstance(scope, dict):
        return scope
    return {key: names.get(value, value) if isinstance(value, str) else value for key, value in scope.items()}


def submit_to_table(api: RunningApi, account: UUID, source: Any, scope: object) -> dict[str, Any]:
    job = api.table.submit(scope, account=account, source=source)
    batch = load_batch(api.config.database_url)
    decisions = check_payments(batch, api.config.decide)
    process_batch(api.config.database_url, batch, decisions, run="sensor", limits=api.config.capture_limits)
    (row,) = api.table.sql(
        "select job.*, made.album_count from measurement_jobs as job"
        " left join playcount_snapshots as made on made.id = job.snapshot where job.id = %s",
        job,
    )
    return row


# One database for the whole list: creating one for each of sixty requests would take a minute.
@pytest.mark.parametrize("card", [True, False], ids=["with a card", "without a card"])
def test_each_request_gets_the_same_answer_over_http_and_in_the_table(api: RunningApi, card: bool):
    for name, (source, scope) in REQUESTS.items():
        # One account for each way, so that neither has captured what the other requests.
        client, other = api.client(card=card), uuid4()
        if card:
            api.sandbox.card(str(other))
        api.table.sql("truncate songstats_backfill_queue")
        row = submit_to_table(api, other, source, replace_names(scope, create_catalogs(api, other)))
        api.table.sql("truncate songstats_backfill_queue")
        answer = client.submit(replace_names(scope, create_catalogs(api, client.account)), source=source)
        assert fields_of_response(answer) == fields_of_row(row), name


def fields_of_response(answer: httpx.Response) -> dict[str, Any]:
    """Return the fields that an HTTP client sees."""
    body = answer.json()
    return {
        "status_code": answer.status_code,
        # An invalid request has no row, and so no state.
        "state": body.get("state", "rejected"),
        "error": body.get("error"),
        "has a link": "checkoutUrl" in body,
        **{name: body.get(name) for name in ("enqueued", "skipped", "album_count", "estimated_cost_usd")},
    }


def fields_of_row(row: dict[str, Any]) -> dict[str, Any]:
    """Return the fields that a client of the table reads, with the same names."""
    accepted = row["status_code"] == 202
    cost = row["estimated_cost_usd"] if accepted else None
    return {
        "status_code": row["status_code"],
        "state": row["state"],
        "error": row["error"],
        "has a link": row["checkout_url"] is not None,
        "enqueued": row["enqueued"],
        "skipped": row["skipped"],
        "album_count": row["album_count"],
        "estimated_cost_usd": None if cost is None else float(cost),
    }


STRINGS = [
    "'", '"', "';--", "' or '1'='1", "'; select pg_sleep(60); --", "%s", "%(account)s", "{}", "\\", "\u0000", "\ud800", "$1",
    "' OR metadata['accountId']:'00000000-0000-4000-8000-0000000000ca", "\u202e", "../../etc/passwd", "=cmd|' /C calc'!A0",
    "🎵" * 50,
]  # fmt: skip


def test_text_with_special_meaning_elsewhere_is_treated_as_text_in_every_parameter(api: RunningApi):
    """SQL, Stripe's search language, paths, formulas: rejected or not found, and no data is changed."""
    client = api.client()
    api.table.catalogue(isrcs(1), account=client.account)
    for text in STRINGS:
        bodies = [
            {"source": text, "scope": {"isrcs": isrcs(1)}},
            {"source": "historical", "scope": {text: isrcs(1)}},
            {"source": "historical", "scope": {"isrcs": [text]}},
            {"source": "historical", "scope": {"album_ids": [text]}},
            {"source": "historical", "scope": {"catalog_id": text}},
            {"source": "historical", "scope": text},
            {"source": "historical", "scope": {"isrcs": isrcs(1)}, "platforms": [text]},
            {"source": "historical", "scope": {"isrcs": isrcs(1)}, "schedule": text},
            {"source": "historical", "scope": {"isrcs": isrcs(1)}, text: 1},
        ]
        for body in bodies:
            for path in (JOBS, f"{JOBS}/estimate"):
                answer = client.post(path, content=json.dumps(body), headers={"content-type": "application/json"})
                assert (answer.status_code, answer.json()["status"]) == (400, "error"), (body, answer.text)
        encoded = "".join(f"%{byte:02x}" for byte in text.encode("utf-8", "surrogatepass"))
        reads = ("research/measurement-jobs/@", "research/tracks/@/measurements", "research/albums/@/measurements")
        for address in (*reads, "catalogs/@/measurements"):
            assert client.get(f"/api/{address.replace('@', encoded)}").status_code in (400, 404), (address, text)
        for query in ("cursor", "limit"):
            assert client.get(f"{JOBS}?{query}={encoded}").status_code == 400, (query, text)
        track = f"/api/research/tracks/{isrcs(1)[0]}/measurements"
        for query in ("window", "aggregate"):
            assert client.get(f"{track}?{query}={encoded}").status_code == 400, (query, text)
        if text.isascii() and text.isprintable():
            key = text.replace(" ", "_")
            first, second = (client.submit({"isrcs": isrcs(1)}, key=key) for _ in range(2))
            assert (first.status_code, first.json()) == (202, second.json())
            for header in ({"x-api-key": text}, {"Authorization": f"Bearer {text}"}):
                assert httpx.get(api.url + JOBS, headers=header).status_code == 401
    assert {row["isrc"] for row in api.table.sql("select isrc from songs")} == set(isrcs(1))
