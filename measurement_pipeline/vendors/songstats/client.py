"""One call to Songstats: what goes out, and an `Answer` whatever comes back.

Nothing here retries, follows a redirect or keeps a cookie: each call is at most one hit, and
whoever reserved it decides about another. What the answer means is `historic_stats`.
"""

import asyncio
import re
import ssl
import zlib
from collections.abc import Sequence
from types import TracebackType
from typing import Self
from urllib.parse import urlencode

import httpx

from measurement_pipeline.domain import isrc as isrcs
from measurement_pipeline.vendors.songstats.response import Failure, SongstatsResponse

__all__ = ["MAX_BODY_BYTES", "Failure", "SongstatsClient", "SongstatsResponse"]

MAX_BODY_BYTES = 64 * 1024 * 1024

# A connection that idled longer is opened anew: the less often a request goes out on one that the
# vendor is just closing, the fewer hits end with an unknown fate.
_KEEPALIVE_SECONDS = 5.0

_SHORTEST_KEY = 8
_HEADER_SAFE = re.compile(r"[!-~]+")
_PRIVATE_HEADER = re.compile(r"cookie|auth|token|secret|session|key")


class _CutShortError(Exception):
    """The body is not all there; the message says how that shows."""


class SongstatsClient:
    """Calls Songstats Enterprise v1 with one key.

    `base_url` is scheme and host, to which `/enterprise/v1/…` is added. `sources` are platforms;
    more of them ride on the same hit. `timeout_seconds` is wall time for a whole call, connecting
    included. At most `concurrency` calls are in the air; a further one waits, and its time starts
    when it goes out. `artist_id` is sent where given, as keys of type artist and label need it.
    Belongs to one event loop. Proxies named by the environment are not used.

    Raises ValueError, which never holds the key, where a setting cannot be used.
    """

    def __init__(
        self,
        *,
        api_key: str,
        base_url: str,
        sources: Sequence[str],
        timeout_seconds: float,
        artist_id: str | None = None,
        concurrency: int = 32,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        if not _HEADER_SAFE.fullmatch(api_key):
            raise ValueError("the Songstats API key is empty or holds characters that a header cannot carry")
        base = httpx.URL(base_url)
        if base.scheme not in ("http", "https") or not base.host:
            raise ValueError(f"the Songstats base URL must be http(s)://host, not {base_url!r}")
        if not sources:
            raise ValueError("at least one source (platform) must be asked for")
        if concurrency < 1:
            raise ValueError(f"at least one call must be allowed at a time, not {concurrency}")
        if timeout_seconds <= 0:
            raise ValueError(f"the Songstats timeout must be more than 0 seconds, not {timeout_seconds}")

        query = {"source": ",".join(sources)}
        if artist_id:
            query["songstats_artist_id"] = artist_id
        root = f"{base_url.rstrip('/')}/enterprise/v1"
        self._history_url = f"{root}/tracks/historic_stats?{urlencode(query, safe=',')}&isrc="
        self._status_url = httpx.URL(f"{root}/status")
        self._api_key = api_key
        # gzip only: it is decoded here, since httpx takes a gzip stream that stops half-way for a
        # whole one.
        self._headers = httpx.Headers(
            {
                "host": base.netloc.decode("ascii"),
                "apikey": api_key,
                "accept": "application/json",
                "accept-encoding": "gzip",
                "user-agent": "measurement-pipeline",
            }
        )
        self._timeout_seconds = timeout_seconds
        # Transports alone, without httpx's client: that one resolves redirects, cookies and
        # authentication even where none is wanted, and fails on a bad Location. One connection
        # each, since a shared pool looks through all its connections for every call: with 32 in
        # the air that is more work than the call itself. Last in, first out keeps few of them warm.
        # Loading the authorities takes as long as several calls, so only where there is somebody to check.
        tls = httpx.create_ssl_context() if base.scheme == "https" else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._lines: asyncio.LifoQueue[httpx.AsyncBaseTransport] = asyncio.LifoQueue()
        self._transports = [transport or _one_connection(tls) for _ in range(concurrency)]
        for line in self._transports:
            self._lines.put_nowait(line)

    async def fetch_history(self, isrc: str) -> SongstatsResponse:
        """Ask for a recording's whole history: one hit.

        Raises ValueError, before anything is sent, for an ISRC that is not in normal form.
        """
        if isrcs.normalise_isrc(isrc) != isrc:
            raise ValueError(f"expected an ISRC of twelve characters in normal form, not {isrc!r}")
        return await self._get(httpx.URL(self._history_url + isrc))

    async def fetch_status(self) -> SongstatsResponse:
        """Ask whether the key works: free."""
        return await self._get(self._status_url)

    async def aclose(self) -> None:
        """Close the connections."""
        for line in self._transports:
            await line.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def _get(self, url: httpx.URL) -> SongstatsResponse:
        line = await self._lines.get()
        try:
            return await self._ask(line, httpx.Request("GET", url, headers=self._headers))
        finally:
            self._lines.put_nowait(line)

    async def _ask(self, line: httpx.AsyncBaseTransport, request: httpx.Request) -> SongstatsResponse:
        status: int | None = None
        headers: dict[str, str] = {}
        try:
            async with asyncio.timeout(self._timeout_seconds):
                response = await line.handle_async_request(request)
                status = response.status_code
                headers = self._harmless(response.headers)
                try:
                    packed = await _read(response)
                finally:
                    await response.aclose()
            body = _decoded(packed, headers.get("content-encoding", ""))
        except (TimeoutError, httpx.TimeoutException):
            detail = f"no complete answer within {self._timeout_seconds:g} s"
            return SongstatsResponse(status, headers, b"", Failure.TIMEOUT, detail)
        except (httpx.UnsupportedProtocol, httpx.LocalProtocolError):
            raise  # our own request was wrong, whatever the vendor does
        except (httpx.TransportError, OSError, _CutShortError) as error:
            if isinstance(error, httpx.ConnectError):
                failure = Failure.UNREACHED
            else:
                failure = Failure.CONNECTION if status is None else Failure.INCOMPLETE
            return SongstatsResponse(status, headers, b"", failure, self._in_words(error))
        return SongstatsResponse.received(status, headers, self._without_key(body))

    def _harmless(self, headers: httpx.Headers) -> dict[str, str]:
        """What may be stored: nothing that could let someone in, and no echo of the key."""
        return {
            name: value
            for name, value in headers.items()
            if not _PRIVATE_HEADER.search(name) and self._api_key not in value
        }

    def _without_key(self, body: bytes) -> bytes:
        """The body as received, save for an echo of the key: bodies are stored, keys must not be.

        A key shorter than _SHORTEST_KEY is no real one, and could stand in any text.
        """
        key = self._api_key.encode("ascii")
        return body.replace(key, b"[api key]") if len(key) >= _SHORTEST_KEY and key in body else body

    def _in_words(self, error: Exception) -> str:
        text = " ".join(str(error).split()).replace(self._api_key, "[api key]")[:200]
        if isinstance(error, _CutShortError):
            return text
        return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _one_connection(tls: ssl.SSLContext) -> httpx.AsyncHTTPTransport:
    # Kept at one, not limited to one: should a connection given up half-way ever fail to be
    # let go, the next call must open another rather than wait for it until its time is up.
    limits = httpx.Limits(max_keepalive_connections=1, keepalive_expiry=_KEEPALIVE_SECONDS)
    return httpx.AsyncHTTPTransport(verify=tls, limits=limits)


async def _read(response: httpx.Response) -> bytes:
    """The body as transferred, content encoding and all. Raises _CutShortError past the limit."""
    if not isinstance(response.stream, httpx.AsyncByteStream):
        raise TypeError("the transport answered with a stream that is not asynchronous")
    parts: list[bytes] = []
    size = 0
    async for part in response.stream:
        size += len(part)
        if size > MAX_BODY_BYTES:
            raise _CutShortError(f"more than {MAX_BODY_BYTES} bytes: the rest was not read")
        parts.append(part)
    return b"".join(parts)


def _decoded(packed: bytes, encoding: str) -> bytes:
    """The body itself. An encoding that was not asked for is left as it is: whole, but unread."""
    if encoding.strip().lower() not in ("gzip", "x-gzip"):
        return packed
    member = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        body = member.decompress(packed, MAX_BODY_BYTES + 1)
    except zlib.error as error:
        raise _CutShortError(f"the body is not the gzip it says it is ({error})") from error
    if len(body) > MAX_BODY_BYTES:
        raise _CutShortError(f"the body unpacks to more than {MAX_BODY_BYTES} bytes")
    if not member.eof:
        raise _CutShortError("the gzip stream stops before its end")
    return body
