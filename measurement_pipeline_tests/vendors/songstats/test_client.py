"""One call to Songstats over a real socket: the request, the response, and every failure."""

import asyncio
import gzip
import json
import socket
import struct
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from email.utils import formatdate
from typing import Any

import httpx
import pytest

from measurement_pipeline.domain.outcome import Cause, Outcome
from measurement_pipeline.vendors.http import MAX_BODY_BYTES
from measurement_pipeline.vendors.songstats.client import SongstatsClient
from measurement_pipeline.vendors.songstats.historic_stats import judge, needs_key_check
from measurement_pipeline.vendors.songstats.response import Failure, SongstatsResponse

KEY = "sk-0123456789abcdef"
ISRC = "AA6Q72000047"
BODY = json.dumps(
    {
        "result": "success",
        "stats": [
            {
                "source": "spotify",
                "data": {"history": [{"date": "2025-01-01", "streams_total": 5}]},
            }
        ],
    }
).encode()

# Far longer than any timeout.
HOUR = 3600.0

Speak = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def client(base_url: str, **settings: Any) -> SongstatsClient:
    usual: dict[str, Any] = {
        "api_key": KEY,
        "base_url": base_url,
        "sources": ["spotify"],
        "timeout_seconds": 60.0,
    }
    return SongstatsClient(**usual | settings)


def answered(status: str, body: bytes, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def saying(*parts: bytes, then: float = 0.0) -> Speak:
    """A vendor that reads a request, sends these parts, waits, and closes."""

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for part in parts:
            writer.write(part)
            await writer.drain()
        await asyncio.sleep(then)

    return speak


async def resetting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A vendor that reads a request and resets the connection."""
    await reader.readuntil(b"\r\n\r\n")
    sock: socket.socket = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@asynccontextmanager
async def vendor(speak: Speak) -> AsyncIterator[str]:
    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await speak(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client has gone
        finally:
            writer.close()

    server = await asyncio.start_server(one, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


def send_request(speak: Speak, **settings: Any) -> SongstatsResponse:
    async def once() -> SongstatsResponse:
        async with vendor(speak) as url, client(url, **settings) as songstats:
            return await songstats.fetch_history(ISRC)

    return asyncio.run(once())


# Requests.


def requests_made(*calls: str, **settings: Any) -> list[httpx.Request]:
    created: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        created.append(request)
        return httpx.Response(200, content=b"{}")

    async def run() -> None:
        transport = httpx.MockTransport(answer)
        async with client("https://vendor.test/", transport=transport, **settings) as songstats:
            for call in calls:
                if call == "status":
                    await songstats.fetch_status()
                else:
                    await songstats.fetch_history(call)

    asyncio.run(run())
    return created


def test_a_history_request_follows_the_vendors_documentation() -> None:
    [request] = requests_made(ISRC, sources=["spotify", "youtube"])
    assert request.method == "GET"
    assert request.url.path == "/enterprise/v1/tracks/historic_stats"
    assert dict(request.url.params) == {"source": "spotify,youtube", "isrc": ISRC}
    assert request.headers["apikey"] == KEY
    assert request.headers["accept"] == "application/json"
    assert request.headers["host"] == "vendor.test"


def test_an_artist_key_sends_its_artist() -> None:
    [request] = requests_made(ISRC, artist_id="abc 1&x=2")
    assert request.url.params["songstats_artist_id"] == "abc 1&x=2"
    assert request.url.params["isrc"] == ISRC


def test_the_status_call_names_no_recording() -> None:
    [request] = requests_made("status", artist_id="abc")
    assert str(request.url) == "https://vendor.test/enterprise/v1/status"
    assert request.headers["apikey"] == KEY


@pytest.mark.parametrize("isrc", ["", "aa6q72000047", "AA-6Q7-20-00047", "AA6Q72000047&isrc=X"])
def test_no_hit_is_spent_on_an_isrc_that_is_not_in_normal_form(isrc: str) -> None:
    with pytest.raises(ValueError, match="ISRC"):
        requests_made(isrc)


@pytest.mark.parametrize(
    "settings",
    [
        {"api_key": ""},
        {"api_key": "with space"},
        {"api_key": "line\nbreak"},
        {"api_key": "schl\u00fcssel"},
        {"base_url": "api.songstats.com"},
        {"base_url": "ftp://api.songstats.com"},
        {"sources": []},
        {"timeout_seconds": 0.0},
        {"concurrency": 0},
    ],
)
def test_an_unusable_setting_is_rejected_without_showing_the_key(
    settings: dict[str, Any],
) -> None:
    with pytest.raises(ValueError, match=r"Songstats|source|call") as refused:
        client(**{"base_url": "https://vendor.test"} | settings)
    assert not settings.get("api_key") or settings["api_key"] not in str(refused.value)


# Responses.


def test_a_complete_response_is_returned_as_received() -> None:
    answer = send_request(saying(answered("200 OK", BODY, "Content-Type: application/json", "X-Limit: 9")))
    assert (answer.status_code, answer.body, answer.failure) == (200, BODY, None)
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-limit"] == "9"
    assert judge(answer).outcome is Outcome.STORED


ERROR = b'{"result":"error","message":"Track not found. "}'
PAGE = b"<!doctype html>\n<html><head><title>Just a moment...</title></head></html>"
HTML, JSON = "Content-Type: text/html; charset=UTF-8", "Content-Type: application/json"


@pytest.mark.parametrize("status", ["400 Bad", "404 Not Found", "429 Slow", "503 Busy"])
def test_any_status_is_a_response_and_not_a_failure(status: str) -> None:
    answer = send_request(saying(answered(status, ERROR, JSON)))
    assert (answer.status_code, answer.failure, answer.body) == (int(status[:3]), None, ERROR)


@pytest.mark.parametrize(
    ("status", "body", "header"),
    [
        ("200 OK", PAGE, HTML),
        ("204 No Content", b"", "X-Odd: 1"),
        ("401 Unauthorized", PAGE, HTML),
        ("403 Forbidden", PAGE, HTML),
        ("404 Not Found", PAGE, JSON),
        ("404 Not Found", b"", JSON),
        ("404 Not Found", ERROR, HTML),
        ("403 Forbidden", b'{"message":"Forbidden"}', JSON),
        ("403 Forbidden", b'{"result":"success","message":""}', JSON),
        ("410 Gone", b"[]", JSON),
    ],
)
def test_a_status_without_songstats_own_body_is_foreign(status: str, body: bytes, header: str) -> None:
    answer = send_request(saying(answered(status, body, header)))
    assert (answer.status_code, answer.failure, answer.body) == (int(status[:3]), Failure.FOREIGN, b"")
    judgement = judge(answer)
    assert (judgement.outcome, judgement.billable) == (None, None)
    assert judgement.detail.startswith(f"not Songstats' own answer: {status[:3]} ")
    assert not needs_key_check(answer)


def test_a_page_is_quoted_without_the_key() -> None:
    page = b"<html>\n you sent %s and " % KEY.encode() + b"x" * 500
    detail = send_request(saying(answered("403 Forbidden", page, HTML))).detail
    assert detail.startswith('403 text/html, begins with "<html> you sent [api key] and xxx')
    assert len(detail) < 150


@pytest.mark.parametrize(("status", "cause"), [(429, Cause.THROTTLED), (503, Cause.TRANSIENT), (425, Cause.TRANSIENT)])
def test_a_gateways_retry_status_counts_and_costs_nothing(status: int, cause: Cause) -> None:
    answer = send_request(saying(answered(f"{status} Later", PAGE, HTML, "Retry-After: 7")))
    judgement = judge(answer)
    assert (judgement.cause, judgement.billable, answer.retry_after) == (cause, False, 7)
    assert "not Songstats' own answer" in judgement.detail


@pytest.mark.fails_without("no redirect is followed", parameters="https://elsewhere.test/")
@pytest.mark.parametrize("location", ["https://elsewhere.test/", "http://[bad", "//"])
def test_a_redirect_is_not_followed_wherever_it_points(location: str) -> None:
    answer = send_request(saying(answered("302 Found", b"", f"Location: {location}")))
    assert (answer.status_code, answer.failure) == (302, Failure.FOREIGN)
    assert "redirect, which is not followed" in answer.detail


def test_headers_with_credentials_are_not_stored() -> None:
    answer = send_request(
        saying(
            answered(
                "200 OK",
                b"{}",
                "Set-Cookie: session=1",
                "X-Auth-Token: t",
                "ApiKey: k",
                f"X-Echo: you sent {KEY}",
                "Retry-After: 5",
            )
        )
    )
    assert set(answer.headers) == {"content-length", "retry-after"}


def test_an_echo_of_the_key_is_redacted() -> None:
    answer = send_request(
        saying(answered("401 Unauthorized", f'{{"result":"error","message":"bad key {KEY}"}}'.encode()))
    )
    assert answer.body == b'{"result":"error","message":"bad key [api key]"}'


def test_a_short_key_is_not_redacted_from_a_body() -> None:
    assert send_request(saying(answered("200 OK", BODY)), api_key="5").body == BODY


def test_retry_after_does_not_depend_on_this_machines_clock() -> None:
    sent, until = formatdate(1_000_000_000, usegmt=True), formatdate(1_000_000_042, usegmt=True)
    answer = send_request(saying(answered("429 Slow", b"", f"Date: {sent}", f"Retry-After: {until}")))
    assert answer.retry_after == 42


def test_gzip_is_decoded() -> None:
    packed = gzip.compress(BODY)
    assert send_request(saying(answered("200 OK", packed, "Content-Encoding: gzip"))).body == BODY


def test_an_unrequested_encoding_is_not_decoded_and_is_malformed() -> None:
    packed = zlib.compress(BODY)
    answer = send_request(saying(answered("200 OK", packed, "Content-Encoding: deflate", JSON)))
    assert (answer.body, answer.failure) == (packed, None)
    assert judge(answer).outcome is Outcome.MALFORMED


# Failures.


def failed(answer: SongstatsResponse) -> tuple[Failure | None, int | None]:
    assert answer.body == b""
    assert KEY not in repr(answer)
    assert answer.detail
    assert judge(answer).outcome is Outcome.TRANSIENT
    assert judge(answer).billable is (False if answer.failure is Failure.UNREACHED else None)
    return answer.failure, answer.status_code


def test_a_refused_connection_sent_nothing_and_costs_nothing() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]

    async def once() -> SongstatsResponse:
        async with client(f"http://127.0.0.1:{port}") as songstats:
            return await songstats.fetch_history(ISRC)

    assert failed(asyncio.run(once())) == (Failure.UNREACHED, None)


@pytest.mark.parametrize(
    "speak",
    [saying(), saying(b"HTTP/1.1 200 O"), saying(b"SSH-2.0-OpenSSH\r\n\r\n"), resetting],
    ids=["closed", "closed in the status line", "not HTTP", "reset"],
)
def test_a_connection_that_ends_before_a_response_is_a_connection_failure(speak: Speak) -> None:
    assert failed(send_request(speak)) == (Failure.CONNECTION, None)


PACKED = gzip.compress(BODY * 50)
HEAD = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    "speak",
    [
        saying(answered("200 OK", BODY)[:-1]),
        saying(HEAD + b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n"),
        saying(HEAD + b"transfer-encoding: chunked\r\n\r\n5\r\nhel"),
        saying(HEAD + b"transfer-encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n"),
        saying(answered("200 OK", PACKED[:-9], "content-encoding: gzip")),
        saying(answered("200 OK", PACKED[:30], "content-encoding: gzip")),
        saying(answered("200 OK", PACKED[:-8] + b"\0" * 8, "content-encoding: gzip")),
        saying(answered("200 OK", BODY, "content-encoding: gzip")),
        saying(answered("200 OK", b"", "content-encoding: gzip")),
    ],
    ids=[
        "one byte short",
        "no last chunk",
        "chunk cut",
        "chunk size is no number",
        "gzip without its end",
        "gzip cut early",
        "gzip with a wrong checksum",
        "gzip that is not",
        "gzip of nothing",
    ],
)
def test_a_truncated_body_is_incomplete(speak: Speak) -> None:
    assert failed(send_request(speak)) == (Failure.INCOMPLETE, 200)


def test_a_body_that_decompresses_above_the_limit_is_incomplete() -> None:
    bomb = gzip.compress(b"\0" * (MAX_BODY_BYTES + 1), compresslevel=1)
    answer = send_request(saying(answered("200 OK", bomb, "content-encoding: gzip")))
    assert failed(answer) == (Failure.INCOMPLETE, 200)
    assert "decompresses to more" in answer.detail


def test_a_body_above_the_size_limit_is_not_read_completely() -> None:
    sent = 0

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HEAD + b"content-length: 1000000000\r\n\r\n")
        while sent < 1_000_000_000:
            writer.write(b" " * 1_000_000)
            await writer.drain()
            sent += 1_000_000

    answer = send_request(flood)
    assert failed(answer) == (Failure.INCOMPLETE, 200)
    assert sent < 2 * MAX_BODY_BYTES


@pytest.mark.parametrize(
    ("speak", "seconds", "status"),
    [
        (saying(then=HOUR), 0.1, None),
        (saying(b"HTTP/1.1 200 OK\r\n", then=HOUR), 0.1, None),
        # Long enough for the head to come on a busy machine.
        (saying(answered("200 OK", BODY)[:-1], then=HOUR), 1.0, 200),
    ],
    ids=["silence", "half a head", "half a body"],
)
def test_the_timeout_limits_the_whole_call(speak: Speak, seconds: float, status: int | None) -> None:
    assert failed(send_request(speak, timeout_seconds=seconds)) == (Failure.TIMEOUT, status)


def test_a_slow_body_does_not_exceed_the_timeout() -> None:
    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HEAD + b"content-length: 1000000\r\n\r\n")
        for _ in range(1_000_000):
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.02)

    assert failed(send_request(trickle, timeout_seconds=1.0)) == (Failure.TIMEOUT, 200)


def test_nothing_is_sent_to_an_unknown_host() -> None:
    def unknown(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("Name or service not known", request=request)

    async def once() -> SongstatsResponse:
        transport = httpx.MockTransport(unknown)
        async with client("https://vendor.test", transport=transport) as songstats:
            return await songstats.fetch_history(ISRC)

    assert failed(asyncio.run(once())) == (Failure.UNREACHED, None)


def test_an_invalid_request_of_our_own_is_not_the_vendors_failure() -> None:
    def wrong(request: httpx.Request) -> httpx.Response:
        raise httpx.LocalProtocolError("bad request", request=request)

    async def once() -> SongstatsResponse:
        transport = httpx.MockTransport(wrong)
        async with client("https://vendor.test", transport=transport) as songstats:
            return await songstats.fetch_history(ISRC)

    with pytest.raises(httpx.LocalProtocolError):
        asyncio.run(once())


# Connections between calls.


def test_a_connection_serves_many_calls() -> None:
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answered("200 OK", BODY))

    async def run() -> None:
        async with vendor(serve) as url, client(url) as songstats:
            for _ in range(20):
                assert (await songstats.fetch_history(ISRC)).status_code == 200

    asyncio.run(run())
    assert connections == 1


def test_an_idle_connection_closed_by_the_vendor_fails_no_call() -> None:
    async def run() -> list[SongstatsResponse]:
        async with vendor(saying(answered("200 OK", BODY))) as url, client(url) as songstats:
            answers = []
            for _ in range(5):
                answers.append(await songstats.fetch_history(ISRC))
                await asyncio.sleep(0.02)
            return answers

    assert [answer.failure for answer in asyncio.run(run())] == [None] * 5


def test_a_connection_closed_during_a_later_call_leaves_its_result_unknown() -> None:
    requests = 0

    async def once_only(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        await reader.readuntil(b"\r\n\r\n")
        requests += 1
        writer.write(answered("200 OK", BODY))
        await reader.readuntil(b"\r\n\r\n")
        requests += 1

    async def run() -> SongstatsResponse:
        async with vendor(once_only) as url, client(url) as songstats:
            assert (await songstats.fetch_history(ISRC)).failure is None
            return await songstats.fetch_history(ISRC)

    assert failed(asyncio.run(run())) == (Failure.CONNECTION, None)
    assert requests == 2  # it was not sent a second time


def test_calls_go_on_after_any_number_of_timeouts_and_cancellations() -> None:
    slow = True

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            if slow:
                writer.write(HEAD + b"content-length: 100\r\n\r\n")
                await asyncio.sleep(HOUR)
            writer.write(answered("200 OK", BODY))

    async def run() -> None:
        nonlocal slow
        async with (
            vendor(serve) as url,
            client(url, timeout_seconds=1.0, concurrency=5) as songstats,
        ):
            timeouts = await asyncio.gather(*(songstats.fetch_history(ISRC) for _ in range(9)))
            assert {answer.failure for answer in timeouts} == {Failure.TIMEOUT}
            cancelled = [asyncio.create_task(songstats.fetch_history(ISRC)) for _ in range(9)]
            await asyncio.sleep(0.01)
            for task in cancelled:
                task.cancel()
            ended = await asyncio.gather(*cancelled, return_exceptions=True)
            assert all(isinstance(end, asyncio.CancelledError) for end in ended)
            slow = False
            answers = await asyncio.gather(*(songstats.fetch_history(ISRC) for _ in range(9)))
            assert [answer.failure for answer in answers] == [None] * 9

    asyncio.run(run())


def test_concurrency_is_limited_and_waiting_does_not_count_towards_the_timeout() -> None:
    now, most = 0, 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal now, most
        while True:
            await reader.readuntil(b"\r\n\r\n")
            now += 1
            most = max(most, now)
            await asyncio.sleep(0.2)
            now -= 1
            writer.write(answered("200 OK", BODY))

    async def run() -> list[SongstatsResponse]:
        async with (
            vendor(serve) as url,
            client(url, concurrency=2, timeout_seconds=1.0) as songstats,
        ):
            return await asyncio.gather(*(songstats.fetch_history(ISRC) for _ in range(12)))

    answers = asyncio.run(run())
    assert [answer.failure for answer in answers] == [None] * 12
    assert most == 2


def test_the_clients_repr_does_not_contain_the_key() -> None:
    async def shown() -> str:
        async with client("http://127.0.0.1:1") as songstats:
            return repr(songstats)

    assert KEY not in asyncio.run(shown())


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
def test_a_proxy_from_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    requested: list[bytes] = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requested.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answered("200 OK", BODY))

    async def once() -> SongstatsResponse:
        async with vendor(proxy) as url:
            monkeypatch.setenv(name, url)
            async with client("http://songstats.invalid") as songstats:
                return await songstats.fetch_history(ISRC)

    assert asyncio.run(once()).failure is Failure.UNREACHED
    assert requested == []
