"""One call to Songstats. It returns a `SongstatsResponse` whatever happens.

The client retries nothing, follows no redirect and keeps no cookie: each call is at most one hit, and the caller that reserved
the hit decides on the next one. `historic_stats` classifies the response.

It does not use `VendorHttpClient`, because its calls run concurrently on one event loop. It shares the rules of that module about
addresses, certificates, sizes and encodings.
"""

import asyncio
import re
import ssl
from collections.abc import Sequence
from types import TracebackType
from typing import Self
from urllib.parse import urlencode

import httpx

from measurement_pipeline.domain.isrc import normalise_isrc
from measurement_pipeline.domain.text import is_visible_ascii
from measurement_pipeline.vendors.http import (
    KEEPALIVE_SECONDS,
    USER_AGENT,
    BodyBuffer,
    IncompleteBodyError,
    describe_error,
    new_tls_context,
    parse_base_url,
)
from measurement_pipeline.vendors.songstats.response import Failure, SongstatsResponse

# A shorter key is not a real one, and could be part of any text.
_MIN_KEY_LENGTH = 8
_PRIVATE_HEADER = re.compile(r"cookie|auth|token|secret|session|key")


class SongstatsClient:
    """Calls Songstats Enterprise v1 with one key.

    `base_url` is scheme and host; `/enterprise/v1/…` is added. `sources` are platforms; several share one hit. `timeout_seconds`
    limits the whole call, connecting included. At most `concurrency` calls are in flight; the time of a further call starts when
    it is sent. `artist_id` is required by keys of type artist and label. A client belongs to one event loop, and uses no proxy
    from the environment.

    Raises ValueError, which does not contain the key, for an unusable setting.
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
        if not is_visible_ascii(api_key):
            raise ValueError("the Songstats API key is empty or contains characters that an HTTP header cannot carry")
        try:
            base = parse_base_url(base_url)
        except ValueError as error:
            raise ValueError(f"Songstats: {error}") from None
        if not sources:
            raise ValueError("the list of sources (platforms) is empty")
        if concurrency < 1:
            raise ValueError(f"the number of concurrent calls must be at least 1, not {concurrency}")
        if timeout_seconds <= 0:
            raise ValueError(f"the Songstats timeout must be more than 0 seconds, not {timeout_seconds}")

        query = {"source": ",".join(sources)}
        if artist_id:
            query["songstats_artist_id"] = artist_id
        root = f"{base_url.rstrip('/')}/enterprise/v1"
        self._history_url = f"{root}/tracks/historic_stats?{urlencode(query, safe=',')}&isrc="
        self._status_url = httpx.URL(f"{root}/status")
        self._api_key = api_key
        self._headers = httpx.Headers(
            {
                "host": base.netloc.decode("ascii"),
                "apikey": api_key,
                "accept": "application/json",
                # gzip only, which is decoded here.
                "accept-encoding": "gzip",
                "user-agent": USER_AGENT,
            }
        )
        self._timeout_seconds = timeout_seconds
        # Transports alone: httpx.AsyncClient resolves redirects, cookies and authentication even if none is wanted, and fails on
        # an invalid Location. Each has one connection, because a shared pool searches all its connections for every call: with
        # 32 in flight that is more work than the call itself. Last in, first out keeps few of them open.
        tls = new_tls_context(base)
        self._idle: asyncio.LifoQueue[httpx.AsyncBaseTransport] = asyncio.LifoQueue()
        self._transports = [transport or _new_connection(tls) for _ in range(concurrency)]
        for connection in self._transports:
            self._idle.put_nowait(connection)

    async def fetch_history(self, isrc: str) -> SongstatsResponse:
        """Fetch a recording's whole history: one hit.

        Raises ValueError, before anything is sent, for an ISRC that is not in normal form.
        """
        if normalise_isrc(isrc) != isrc:
            raise ValueError(f"expected an ISRC of twelve characters in normal form, not {isrc!r}")
        return await self._get(httpx.URL(self._history_url + isrc))

    async def fetch_status(self) -> SongstatsResponse:
        """Fetch `/status`, which shows whether the key works. Free."""
        return await self._get(self._status_url)

    async def aclose(self) -> None:
        """Close the connections."""
        for connection in self._transports:
            await connection.aclose()

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
        connection = await self._idle.get()
        try:
            return await self._send(connection, httpx.Request("GET", url, headers=self._headers))
        finally:
            self._idle.put_nowait(connection)

    async def _send(self, connection: httpx.AsyncBaseTransport, request: httpx.Request) -> SongstatsResponse:
        status: int | None = None
        headers: dict[str, str] = {}
        try:
            async with asyncio.timeout(self._timeout_seconds):
                response = await connection.handle_async_request(request)
                status = response.status_code
                headers = self._storable_headers(response.headers)
                try:
                    read = await _read_body(response)
                finally:
                    await response.aclose()
            body = read.decode(headers.get("content-encoding", ""))
        except (TimeoutError, httpx.TimeoutException):
            detail = f"no complete response within {self._timeout_seconds:g} s"
            return SongstatsResponse(status, headers, b"", Failure.TIMEOUT, detail)
        except (httpx.UnsupportedProtocol, httpx.LocalProtocolError):
            raise  # the request itself is wrong, whatever the vendor does
        except (httpx.TransportError, OSError) as error:
            if isinstance(error, httpx.ConnectError):
                failure = Failure.UNREACHED
            else:
                failure = Failure.CONNECTION if status is None else Failure.INCOMPLETE
            detail = str(error) if isinstance(error, IncompleteBodyError) else describe_error(error)
            return SongstatsResponse(status, headers, b"", failure, detail.replace(self._api_key, "[api key]"))
        return SongstatsResponse.received(status, headers, self._redact_key(body))

    def _storable_headers(self, headers: httpx.Headers) -> dict[str, str]:
        """The headers that may be stored: no credentials, and no echo of the key."""
        return {
            name: value
            for name, value in headers.items()
            if not _PRIVATE_HEADER.search(name) and self._api_key not in value
        }

    def _redact_key(self, body: bytes) -> bytes:
        """The body as received, except for an echo of the key: bodies are stored, and keys must not be."""
        key = self._api_key.encode("ascii")
        return body.replace(key, b"[api key]") if len(key) >= _MIN_KEY_LENGTH and key in body else body


def _new_connection(tls: ssl.SSLContext) -> httpx.AsyncHTTPTransport:
    # One connection is kept, but a second may be opened. If a connection cancelled half-way were never released, the next call
    # must not wait for it until the timeout.
    limits = httpx.Limits(max_keepalive_connections=1, keepalive_expiry=KEEPALIVE_SECONDS)
    return httpx.AsyncHTTPTransport(verify=tls, limits=limits)


async def _read_body(response: httpx.Response) -> BodyBuffer:
    if not isinstance(response.stream, httpx.AsyncByteStream):
        raise TypeError("the transport returned a stream that is not asynchronous")
    body = BodyBuffer()
    async for part in response.stream:
        body.add(part)
    return body
