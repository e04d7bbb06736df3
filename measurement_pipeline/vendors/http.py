"""One HTTP request to a vendor: to the configured host only, with a limit on its time and its size.

The client follows no redirect, uses no proxy from the environment, keeps no cookie and repeats nothing. Each vendor's package
interprets the response and decides on retries.
"""

import json
import re
import ssl
import time
import zlib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import httpx

from measurement_pipeline.domain.text import one_line

MAX_BODY_BYTES = 64 * 1024 * 1024
# A longer wait is a mistake of the vendor, or has the same effect.
MAX_RETRY_AFTER_SECONDS = timedelta(days=30).total_seconds()

# Idle connections are closed early: a request sent while the vendor closes its connection has an unknown result. Common servers
# close theirs after 5 s or more.
KEEPALIVE_SECONDS = 3.0
USER_AGENT = "measurement-pipeline"

_SECONDS = re.compile(r"-?[0-9]+(\.[0-9]+)?")
_MEDIA_TYPE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,40}/[a-z0-9][a-z0-9.+-]{0,60}")
_JSON_TYPE = re.compile(r"(application|text)/([a-z0-9.-]+\+)?json")
_MAX_EXCERPT_LENGTH = 80
_MAX_ERROR_LENGTH = 200
_NOT_JSON = object()
# Headers that describe the transfer, which is undone when the body is decoded.
_TRANSFER_HEADERS = ("content-encoding", "content-length", "transfer-encoding")

_GZIP_FORMAT = zlib.MAX_WBITS | 16

_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


class IncompleteBodyError(httpx.RemoteProtocolError):
    """The body is too large, or stops before its end. The message says how that shows."""


class BodyBuffer:
    """Collects a response's body as transferred, and decodes it at the end.

    httpx takes a gzip stream that stops early for a complete one. It must be noticed, because the vendor may have billed it.
    """

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def add(self, part: bytes) -> None:
        """Add the next part. Raises IncompleteBodyError above the size limit."""
        self._size += len(part)
        if self._size > MAX_BODY_BYTES:
            raise IncompleteBodyError(f"the body has more than {MAX_BODY_BYTES} bytes: reading stopped")
        self._parts.append(part)

    def decode(self, encoding: str) -> bytes:
        """The decoded body. An encoding that no request accepts is not decoded. Raises IncompleteBodyError."""
        encoded = b"".join(self._parts)
        if encoding.strip().lower() not in ("gzip", "x-gzip"):
            return encoded
        decompressor = zlib.decompressobj(wbits=_GZIP_FORMAT)
        try:
            body = decompressor.decompress(encoded, MAX_BODY_BYTES + 1)
        except zlib.error as error:
            raise IncompleteBodyError(f"the body is not valid gzip ({error})") from error
        if len(body) > MAX_BODY_BYTES:
            raise IncompleteBodyError(f"the body decompresses to more than {MAX_BODY_BYTES} bytes")
        if not decompressor.eof:
            raise IncompleteBodyError("the gzip stream stops before its end")
        return body


class VendorHttpClient:
    """Connections to the host of `base_url`. Threads may share one client. Raises ValueError for an invalid base URL."""

    def __init__(self, base_url: str, *, transport: httpx.BaseTransport | None = None) -> None:
        url = parse_base_url(base_url)
        self.base_url = base_url.rstrip("/")
        limits = httpx.Limits(max_connections=None, keepalive_expiry=KEEPALIVE_SECONDS)
        # The transport alone: httpx.Client resolves redirects and stores cookies even if neither is wanted.
        self._transport = transport or httpx.HTTPTransport(verify=new_tls_context(url), limits=limits)

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        timeout_seconds: float,
        content: bytes | None = None,
    ) -> httpx.Response:
        """Send one request to a URL below `base_url`, and read its response completely.

        Raises httpx.HTTPError if the response is missing or incomplete. The timeout limits each wait for the vendor, and no
        further wait begins once it has passed.
        """
        if not f"{url}/".startswith(f"{self.base_url}/"):
            raise ValueError(f"expected a URL below {self.base_url}")
        deadline = time.monotonic() + timeout_seconds
        request = httpx.Request(
            method,
            url,
            headers={"accept-encoding": "gzip", "user-agent": USER_AGENT, **headers},
            content=content,
            extensions={"timeout": httpx.Timeout(timeout_seconds).as_dict()},
        )
        response = self._transport.handle_request(request)
        if not isinstance(response.stream, httpx.SyncByteStream):
            raise TypeError("the transport returned a stream that is not synchronous")
        body = BodyBuffer()
        try:
            for part in response.stream:
                body.add(part)
                if time.monotonic() > deadline:
                    raise httpx.ReadTimeout(f"no complete response within {timeout_seconds:g} s")
        finally:
            response.close()
        content = body.decode(response.headers.get("content-encoding", ""))
        kept = [(name, value) for name, value in response.headers.multi_items() if name not in _TRANSFER_HEADERS]
        return httpx.Response(response.status_code, headers=kept, content=content, request=request)

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()


def parse_base_url(base_url: str) -> httpx.URL:
    """A vendor's base URL. Raises ValueError unless it is http(s)://host."""
    url = httpx.URL(base_url)
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError(f"the vendor's base URL must be http(s)://host, not {base_url!r}")
    return url


def new_tls_context(base_url: httpx.URL) -> ssl.SSLContext:
    """The TLS settings for a host.

    Loading the certificate authorities takes as long as several requests, so a plain http host gets a context without them.
    """
    return httpx.create_ssl_context() if base_url.scheme == "https" else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def describe_foreign_response(
    status: int, headers: Mapping[str, str], body: bytes, *, is_vendor_error: Callable[[object], bool]
) -> str | None:
    """Describe a response that the vendor did not send; None if it is the vendor's own. Header names are lower case.

    A CDN's challenge page, a proxy's error page and a captive portal use the vendor's status codes. An error is the vendor's
    own if it is JSON of the vendor's error shape. A success is the vendor's own if its content type or its body is JSON: what is
    called JSON and cannot be read is the vendor's fault, and the vendor's package reports it.

    The body must not contain secrets, because the description quotes its first characters.
    """
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    is_json_type = _JSON_TYPE.fullmatch(media_type) is not None
    if 200 <= status < 300:
        is_own = is_json_type or _parse_json(body) is not _NOT_JSON
    else:
        is_own = (is_json_type or not media_type) and is_vendor_error(_parse_json(body))
    if is_own:
        return None
    shown_type = media_type if _MEDIA_TYPE.fullmatch(media_type) else "without a content type"
    redirect = ", a redirect, which is not followed" if 300 <= status < 400 else ""
    return f"{status} {shown_type}{redirect}, {_describe_body(body)}"


def _parse_json(body: bytes) -> object:
    try:
        return json.loads(body, parse_int=str)
    except (ValueError, RecursionError):
        return _NOT_JSON


def _describe_body(body: bytes) -> str:
    text = body[: 8 * _MAX_EXCERPT_LENGTH].decode("utf-8", "replace")
    line = one_line(text, max_length=_MAX_EXCERPT_LENGTH)
    return f'begins with "{line}"' if line else "with an empty body"


def may_have_been_received(error: httpx.HTTPError) -> bool:
    """Whether the vendor may have received the request that ended with `error`."""
    return not isinstance(error, _NOT_SENT)


def describe_error(error: Exception) -> str:
    """How a request failed, in one line without its URL and headers."""
    text = " ".join(str(error).split())[:_MAX_ERROR_LENGTH]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def parse_retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds of a `Retry-After` header, 0 to 30 days; None if it is missing or unreadable. Header names are lower case.

    An HTTP date is compared with the response's own `Date`, never with this machine's clock. Without a `Date` it is ignored.
    """
    text = headers.get("retry-after", "").strip()
    if _SECONDS.fullmatch(text):
        seconds = float(text)
    else:
        until, sent = _parse_http_date(text), _parse_http_date(headers.get("date", ""))
        if until is None or sent is None:
            return None
        seconds = (until - sent).total_seconds()
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_SECONDS)


def _parse_http_date(text: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text)
    # The standard library's parser raises any of these for invalid text.
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    # The parser returns "-0000" without a time zone; HTTP dates are always GMT.
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
