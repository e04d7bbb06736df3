"""Requests to a vendor: one host, one timeout and one size limit, whatever the server does."""

import contextlib
import gzip
import socket
import threading
import time
from collections.abc import Iterator

import httpx
import pytest

from measurement_pipeline.vendors import http
from measurement_pipeline.vendors.http import VendorHttpClient, describe_foreign_response, may_have_been_received


@contextlib.contextmanager
def saying(*parts: bytes, drips: bool = False) -> Iterator[str]:
    """A vendor that reads a request and sends these parts. `drips`: then a byte every 20 ms until the client closes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                connection, _ = listener.accept()
                with connection:
                    connection.recv(65536)
                    for part in parts:
                        connection.sendall(part)
                    while drips:
                        connection.sendall(b"x")
                        time.sleep(0.02)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    thread.join(120)


def send_request(url: str, *, timeout_seconds: float = 60) -> httpx.Response:
    line = VendorHttpClient(url)
    try:
        return line.request("GET", f"{url}/x", headers={}, timeout_seconds=timeout_seconds)
    finally:
        line.close()


def test_a_response_is_complete_and_decoded():
    packed = gzip.compress(b'{"a": 1}')
    head = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\nx-more: 7\r\n\r\n" % len(packed)
    with saying(head, packed) as url:
        answer = send_request(url)
    assert (answer.status_code, answer.content, answer.headers["x-more"]) == (200, b'{"a": 1}', "7")
    assert "content-encoding" not in answer.headers


@pytest.mark.parametrize(
    ("body", "expected"),
    [(gzip.compress(b'{"a": 1}' * 99)[:-9], "stops before its end"), (b'{"a": 1}', "not valid gzip")],
    ids=["truncated", "not gzip"],
)
def test_an_incomplete_gzip_body_is_an_error(body: bytes, expected: str):
    head = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(body)
    with saying(head, body) as url, pytest.raises(httpx.RemoteProtocolError, match=expected):
        send_request(url)


def test_a_slow_response_ends_at_the_timeout():
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n"
    with (
        saying(head, drips=True) as url,
        pytest.raises(httpx.ReadTimeout, match=r"no complete response within 0\.5 s"),
    ):
        send_request(url, timeout_seconds=0.5)


def test_a_body_above_the_size_limit_is_not_read_completely(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(http, "MAX_BODY_BYTES", 1000)
    with (
        saying(b"HTTP/1.1 200 OK\r\ncontent-length: 5000\r\n\r\n", b"x" * 5000) as url,
        pytest.raises(httpx.RemoteProtocolError, match="more than 1000 bytes"),
    ):
        send_request(url)


@pytest.mark.parametrize(
    "url",
    ["http://elsewhere.test/x", "http://vendor.test.elsewhere.test/x", "http://vendor.test@elsewhere.test/", "/x"],
)
def test_only_urls_below_the_base_url_are_requested(url: str):
    requested: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        requested.append(request)
        return httpx.Response(200)

    line = VendorHttpClient("http://vendor.test", transport=httpx.MockTransport(answer))
    with pytest.raises(ValueError, match=r"expected a URL below http://vendor\.test"):
        line.request("GET", url, headers={}, timeout_seconds=1)
    assert requested == []


def test_whether_a_request_may_have_been_received():
    with saying() as url, pytest.raises(httpx.HTTPError) as dropped:
        send_request(url)
    assert may_have_been_received(dropped.value)
    with pytest.raises(httpx.HTTPError) as refused:
        send_request("http://127.0.0.1:9")
    assert not may_have_been_received(refused.value)


# --- foreign responses -------------------------------------------------------------------------------------------------------

JSON, HTML = "application/json; charset=utf-8", "text/html"


@pytest.mark.parametrize(
    ("status", "content_type", "body", "is_own"),
    [
        (200, JSON, b'{"a": 1}', True),
        (200, JSON, b'{"a": ', True),
        (200, "application/vnd.api+json", b"cut", True),
        (200, "text/plain", b'{"a": 1}', True),
        (200, None, b"[]", True),
        (200, HTML, b"<html>", False),
        (200, None, b"", False),
        (204, None, b"", False),
        (404, JSON, b'{"mine": 1}', True),
        (404, None, b'{"mine": 1}', True),
        (404, HTML, b'{"mine": 1}', False),
        (404, JSON, b'{"others": 1}', False),
        (404, JSON, b"<html>", False),
        (404, JSON, b"", False),
        (302, None, b"", False),
        (500, HTML, b"<html>", False),
    ],
)
def test_a_response_is_the_vendors_by_its_content_type_json_and_error_shape(
    status: int, content_type: str | None, body: bytes, is_own: bool
):
    headers = {} if content_type is None else {"content-type": content_type}
    result = describe_foreign_response(status, headers, body, is_vendor_error=lambda value: value == {"mine": "1"})
    assert (result is None) == is_own


def test_a_foreign_response_is_described_in_one_short_line():
    page = b"<!doctype html>\n<title>\x00Just a \xff moment</title>" + b"x" * 1_000_000
    result = describe_foreign_response(
        403, {"content-type": "Text/HTML; charset=x"}, page, is_vendor_error=lambda _: False
    )
    assert result is not None
    assert result.startswith('403 text/html, begins with "<!doctype html> <title> Just a')
    assert result.isprintable()
    assert len(result) < 150
    assert describe_foreign_response(302, {"content-type": "a b\x1b"}, b"", is_vendor_error=lambda _: False) == (
        "302 without a content type, a redirect, which is not followed, with an empty body"
    )
