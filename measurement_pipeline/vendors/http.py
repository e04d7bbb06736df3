"""Asking a vendor over HTTP: the host that is named and no other, within a time and a size.

No redirect is followed, no proxy of the environment is used, no cookie is kept, nothing is repeated. What an answer means, and
whether to ask again, is the vendor's package's.
"""

import json
import re
import ssl
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import httpx

MAX_BODY_BYTES = 64 * 1024 * 1024
# A longer wait is either nonsense or not worth telling from it.
MAX_RETRY_AFTER_SECONDS = timedelta(days=30).total_seconds()

# A connection that idled longer is opened anew: the less often a request goes out on one that is just being closed, the fewer
# end with an unknown fate.
_KEEPALIVE_SECONDS = 5.0
_SECONDS = re.compile(r"-?[0-9]+(\.[0-9]+)?")

_MEDIA_TYPE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,40}/[a-z0-9][a-z0-9.+-]{0,60}")
_JSON_TYPE = re.compile(r"(application|text)/([a-z0-9.-]+\+)?json")
_LONGEST_EXCERPT = 80
_NO_JSON = object()

_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


class VendorHttpClient:
    """Connections to the host of `base_url`; threads may share them. Raises ValueError for an address that is none."""

    def __init__(self, base_url: str, *, transport: httpx.BaseTransport | None = None) -> None:
        self.base_url = base_url.rstrip("/")
        base = httpx.URL(base_url)
        if base.scheme not in ("http", "https") or not base.host:
            raise ValueError(f"a vendor's address must be http(s)://host, not {base_url!r}")
        # Loading the authorities takes as long as several requests, so only where there is somebody to check.
        tls = httpx.create_ssl_context() if base.scheme == "https" else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        limits = httpx.Limits(max_connections=None, keepalive_expiry=_KEEPALIVE_SECONDS)
        # A transport alone, without httpx's client, which resolves redirects and keeps cookies even where none is wanted.
        self._transport = transport or httpx.HTTPTransport(verify=tls, limits=limits)

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        timeout_seconds: float,
        content: bytes | None = None,
    ) -> httpx.Response:
        """One request, and its answer read whole. `url` is below `base_url`.

        Raises httpx.HTTPError where there is no whole answer. The time is that of each wait for the vendor, and once it is
        over no further one begins.
        """
        if not f"{url}/".startswith(f"{self.base_url}/"):
            raise ValueError(f"expected an address below {self.base_url}")
        deadline = time.monotonic() + timeout_seconds
        request = httpx.Request(
            method,
            url,
            headers={"accept-encoding": "gzip", "user-agent": "measurement-pipeline", **headers},
            content=content,
            extensions={"timeout": httpx.Timeout(timeout_seconds).as_dict()},
        )
        answer = self._transport.handle_request(request)
        parts: list[bytes] = []
        size = 0
        try:
            for part in answer.iter_bytes():
                size += len(part)
                if size > MAX_BODY_BYTES:
                    raise httpx.RemoteProtocolError(f"more than {MAX_BODY_BYTES} bytes: the rest was not read")
                if time.monotonic() > deadline:
                    raise httpx.ReadTimeout(f"no whole answer within {timeout_seconds:g} s")
                parts.append(part)
        finally:
            answer.close()
        packing = ("content-encoding", "content-length", "transfer-encoding")
        kept = [(name, value) for name, value in answer.headers.multi_items() if name not in packing]
        return httpx.Response(answer.status_code, headers=kept, content=b"".join(parts), request=request)

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()


def describe_foreign_response(
    status: int, headers: Mapping[str, str], body: bytes, *, is_vendor_error: Callable[[object], bool]
) -> str | None:
    """Describe an answer that is not the vendor's own, or return None. Header names are lower case.

    A CDN's challenge page, a proxy's error page and a captive portal use the vendor's status codes. An error is the vendor's
    own if it is JSON of the vendor's error shape. A success is the vendor's own if its content type or its body is JSON: what is
    called JSON and cannot be read is the vendor's fault, and the vendor's package reports it.

    The body must not contain secrets, because the description quotes its first characters.
    """
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    is_json_type = _JSON_TYPE.fullmatch(media_type) is not None
    if 200 <= status < 300:
        is_own = is_json_type or _json(body) is not _NO_JSON
    else:
        is_own = (is_json_type or not media_type) and is_vendor_error(_json(body))
    if is_own:
        return None
    shown = media_type if _MEDIA_TYPE.fullmatch(media_type) else "without a content type"
    redirect = ", a redirect, which is not followed" if 300 <= status < 400 else ""
    return f"{status} {shown}{redirect}, {_beginning(body)}"


def _json(body: bytes) -> object:
    try:
        return json.loads(body, parse_int=str)
    except (ValueError, RecursionError):
        return _NO_JSON


def _beginning(body: bytes) -> str:
    text = body[: 8 * _LONGEST_EXCERPT].decode("utf-8", "replace")
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return f'begins with "{line[:_LONGEST_EXCERPT]}"' if line else "with an empty body"


def may_have_been_received(error: httpx.HTTPError) -> bool:
    """Whether the vendor may have got the request that ended so."""
    return not isinstance(error, _NOT_SENT)


def describe_error(error: httpx.HTTPError) -> str:
    """One line on how a request ended; it holds neither address nor headers."""
    text = " ".join(str(error).split())[:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def parse_retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait as the vendor asks, 0 to 30 days; None where it asks nothing readable. Names are lower case.

    An HTTP-date is read against the answer's own `Date`, never against this machine's clock, so without a `Date` it says nothing.
    """
    text = headers.get("retry-after", "").strip()
    if _SECONDS.fullmatch(text):
        seconds = float(text)
    else:
        until, sent = _http_date(text), _http_date(headers.get("date", ""))
        if until is None or sent is None:
            return None
        seconds = (until - sent).total_seconds()
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_SECONDS)


def _http_date(text: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text)
    # What the standard library's parser raises, depending on the garbage.
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    # "-0000" parses as naive; HTTP knows no zone but GMT.
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
