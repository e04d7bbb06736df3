"""Any payload of the vendor maps to a row of the outcome table, and its queue row to a valid state.

The payloads are random bytes, and real responses with random edits. `songstats/test_historic_stats` covers single values and
shapes; here they pass the real client and the backfill into PostgreSQL.
"""

import gzip
import json
from copy import deepcopy
from datetime import date
from itertools import count
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from measurement_pipeline.backfill import operator_actions
from measurement_pipeline.domain.outcome import Cause, Outcome
from measurement_pipeline.postgres.database import connect
from measurement_pipeline.sandbox import Behaviour, KnownRecording, Scenario
from measurement_pipeline.sandbox.songstats_body import render
from measurement_pipeline.vendors.http import MAX_RETRY_AFTER_SECONDS
from measurement_pipeline.vendors.songstats.historic_stats import judge
from measurement_pipeline.vendors.songstats.response import Failure, SongstatsResponse
from measurement_pipeline_tests.faults import vendor_failures
from measurement_pipeline_tests.faults.invariants import HISTORY, assert_invariants_hold
from measurement_pipeline_tests.faults.matrix import ProofRecorder
from measurement_pipeline_tests.workbench import Workbench, isrcs

# The outcome table: the outcome, whether the hit counts, and its cause in the ledger.
TABLE = {
    (Outcome.STORED, True, Cause.STORED),
    (Outcome.NO_HISTORY, True, Cause.NO_HISTORY),
    (Outcome.REJECTED, True, Cause.REJECTED),
    (Outcome.MALFORMED, True, Cause.MALFORMED),
    (Outcome.TRANSIENT, False, Cause.TRANSIENT),
    (Outcome.TRANSIENT, None, Cause.TRANSIENT),
    (Outcome.TRANSIENT, None, Cause.TIMEOUT),
    (None, False, Cause.THROTTLED),
    (None, False, Cause.REFUSED_KEY),
    (None, None, Cause.TRANSIENT),
}
# The valid states of a row after a response. `failed` as `transient` would be our own error: a value that PostgreSQL rejects.
STATES = {
    ("done", "stored"),
    ("done", "no_history"),
    ("done", "rejected"),
    ("failed", "malformed"),
    ("pending", None),
}
LAST_DAY = date(2026, 9, 22)
AWKWARD = Behaviour(points=12, counts_as_text=0.5, gaps=0.5, bare=0.5, falls=0.5)

ODD_VALUES = st.sampled_from(
    [
        None, True, False, 0, -1, 1.5, 2**63 - 1, 2**63, 10**4000, float("nan"), float("-inf"), "", " ", "NaN", "1e999999999",
        "296422273.0", "1,000", "٣", "\x00", "a\x00b", "\ud800", "\udfff\ud800", "2026-02-30", "0000-00-00", "9999-12-31",
        "0001-01-01", "20260101", "spotify", "success", [], {}, [[]], {"": None}, {"date": {}}, [None] * 50,
    ]
) | st.integers() | st.floats() | st.text(max_size=8)  # fmt: skip
SPLICES = st.sampled_from(
    [
        b"\x00", b"\xff", b"\xc3\x28", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\\ud800", b"\\u0000", b"NaN", b"Infinity", b"-",
        b"1e400", b"9" * 5000, b"[" * 3000, b'{"a":' * 3000, b'"', b"}", b"]", b",", b"\n", b"/* */", b"<html>",
    ]
) | st.binary(max_size=6)  # fmt: skip


@st.composite
def real_answers(draw: st.DrawFn) -> bytes:
    """A response of the vendor for some recording, with random irregularities."""
    (isrc,) = isrcs(1, start=draw(st.integers(0, 40)))
    role = draw(st.sampled_from([Scenario.PLAIN, Scenario.PLAIN, Scenario.PLAIN, Scenario.NO_SPOTIFY, Scenario.EMPTY]))
    sources = draw(st.sampled_from([("spotify",), ("spotify", "youtube", "shazam")]))
    aggregates = draw(st.booleans())
    return render(
        isrc,
        KnownRecording(),
        role,
        AWKWARD,
        sources=sources,
        aggregates=aggregates,
        start=None,
        end=None,
        until=LAST_DAY,
    )


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) in a JSON value."""
    result: list[tuple[Any, Any]] = []
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in inner:
        result.append((value, key))
        result += places(child)
    return result


@st.composite
def edited(draw: st.DrawFn) -> bytes:
    """A real response with a few values replaced, removed, renamed, duplicated, wrapped or swapped."""
    value = json.loads(draw(real_answers()))
    for _ in range(draw(st.integers(1, 4))):
        spots = places(value)
        if not spots:
            break
        container, key = draw(st.sampled_from(spots))
        match draw(st.sampled_from(["replace", "leave out", "rename", "double", "wrap", "swap"])):
            case "replace":
                container[key] = deepcopy(draw(ODD_VALUES))
            case "leave out":
                del container[key]
            case "rename" if isinstance(container, dict):
                container[draw(st.text(max_size=12))] = container.pop(key)
            case "double" if isinstance(container, list):
                container.append(container[key])
            case "swap":
                other, elsewhere = draw(st.sampled_from(spots))
                # Copies, because one value may contain the other.
                container[key], other[elsewhere] = deepcopy(other[elsewhere]), deepcopy(container[key])
            case _:
                container[key] = [container[key]]
    return json.dumps(value, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """The bytes of a response cut, flipped, spliced or re-encoded."""
    body = draw(real_answers() | edited())
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(body)))
        match draw(st.sampled_from(["cut", "cut", "flip", "splice", "splice", "repeat", "encode"])):
            case "cut":
                body = body[:at]
            case "flip" if at < len(body):
                body = body[:at] + bytes([body[at] ^ draw(st.integers(1, 255))]) + body[at + 1 :]
            case "splice":
                body = body[:at] + draw(SPLICES) + body[at:]
            case "repeat":
                body += body
            case "encode":
                body = body.decode("utf-8", "replace").encode(
                    draw(st.sampled_from(["utf-16", "utf-32-be", "latin-1"])), "replace"
                )
            case _:
                pass
    return body


BODIES = st.binary(max_size=300) | real_answers() | edited() | damaged()
HEADER_VALUES = st.sampled_from(
    ["-1", "1e9", "1_000", "NaN", "soon", "Wed, 21 Oct 2026 07:28:00 GMT", "Wed, 99 Foo 99999 99:99:99 -9999", "9" * 400, "\x01"]
) | st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=40)  # fmt: skip
HEADERS = st.dictionaries(
    st.sampled_from(["retry-after", "date", "content-type", "x-odd"]) | st.text("abcdefgh-", min_size=1, max_size=10),
    HEADER_VALUES,
    max_size=4,
)


def test_any_response_maps_to_a_row_of_the_outcome_table(long_form: bool, record_proof: ProofRecorder):
    tried = count()

    @settings(max_examples=2_000 if long_form else 150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(
        status=st.just(200) | st.integers(100, 599),
        headers=HEADERS,
        body=BODIES,
        failure=st.none() | st.none() | st.none() | st.sampled_from(Failure),
        key_works=st.sampled_from([True, False, None]),
    )
    @example(status=200, headers={}, body=b"[" * 200_000, failure=None, key_works=None)
    @example(
        status=200, headers={}, body=b'{"result":"success","stats":' + b"[" * 200_000, failure=None, key_works=None
    )
    @example(status=400, headers={"retry-after": "9" * 5000}, body=b"9" * 6000, failure=None, key_works=None)
    def maps_to_a_row(
        *, status: int, headers: dict[str, str], body: bytes, failure: Failure | None, key_works: bool | None
    ) -> None:
        next(tried)
        answer = SongstatsResponse(status, headers, body, failure)
        judgement = judge(answer, is_key_valid=key_works)
        assert (judgement.outcome, judgement.billable, judgement.cause) in TABLE
        assert (judgement.history is not None) == (judgement.outcome is Outcome.STORED)
        assert judgement.detail.isprintable()
        assert len(judgement.detail) <= 300
        assert answer.retry_after is None or 0 <= answer.retry_after <= MAX_RETRY_AFTER_SECONDS

    maps_to_a_row()
    record_proof("random payloads, judged", ["I8"], times=next(tried))


def as_sent(status: int, headers: dict[str, str], body: bytes, *, packed: bool) -> str:
    """A complete HTTP response, one character for each byte."""
    content = gzip.compress(body, mtime=0) if packed else body
    lines = [f"HTTP/1.1 {status} As It Comes", f"content-length: {len(content)}", "connection: close"]
    lines += ["content-encoding: gzip"] * packed
    lines += [f"{name}: {value}" for name, value in headers.items() if name not in {"content-length", "connection"}]
    return "\r\n".join([*lines, "", ""]) + content.decode("latin-1")


def test_any_response_leaves_its_recording_in_a_valid_state(
    bench: Workbench, long_form: bool, record_proof: ProofRecorder
):
    numbers, tried = count(step=8), count()

    @settings(
        max_examples=100 if long_form else 8,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
    )
    @given(
        st.lists(
            st.tuples(st.just(200) | st.just(200) | st.integers(100, 599), HEADERS, BODIES, st.booleans()),
            min_size=8,
            max_size=8,
        )
    )
    def leaves_a_state(answers: list[tuple[int, dict[str, str], bytes, bool]]) -> None:
        songs = isrcs(8, start=next(numbers))
        bench.submit_request(songs)
        bench.sandbox.clear_faults()
        sent = {}
        for song, (status, headers, body, packed) in zip(songs, answers, strict=True):
            next(tried)
            # Responses with these two statuses have no body, whatever follows their headers.
            sent[song] = b"" if status in {204, 304} else body
            bench.sandbox.faults(HISTORY, isrc=song, raw=as_sent(status, headers, body, packed=packed))
        for _ in range(12):
            vendor_failures.run_backfill(bench, songs)
            with connect(bench.database_url) as connection:
                operator_actions.close_breaker(connection, actor="a test")
            # Rows that wait for a retry have been called.
            unasked = "select 1 from songstats_backfill_queue where song = any(%s) and status = 'pending' and lease = 0"
            if not bench.sql(unasked, songs):
                break
        rows = bench.sql("select * from songstats_backfill_queue where song = any(%s)", songs)
        assert {(row["status"], row["outcome"]) for row in rows} <= STATES, [row["last_error"] for row in rows]
        ledger = bench.sql("select * from songstats_quota_ledger where song = any(%s)", songs)
        learnt_at = {(cause.value, billable) for _, billable, cause in TABLE}
        assert {(hit["reason"], hit["billable"]) for hit in ledger} <= learnt_at
        stored = bench.sql("select song, body from songstats_responses where song = any(%s)", songs)
        assert [row["song"] for row in stored if bytes(row["body"]) != sent[row["song"]]] == [], "stored as it was sent"
        # The next example uses other recordings.
        bench.sql("update songstats_backfill_queue set not_before = now() + interval '1 day' where status = 'pending'")

    leaves_a_state()
    assert_invariants_hold(bench)
    record_proof("random payloads, through a backfill", ["I1", "I3", "I5", "I6", "I8", "I10", "I14"], times=next(tried))
