"""A webhook accepted a message if its status says so and the body is not a web page."""

import httpx
import pytest

from measurement_pipeline.vendors.errors import UnavailableError
from measurement_pipeline.vendors.webhook import Webhook

URL = "https://hooks.test/services/s3cret"


def post(answer: httpx.Response) -> None:
    Webhook(URL, transport=httpx.MockTransport(lambda _: answer)).post("it broke")


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, content=b"ok", headers={"content-type": "text/html"}),
        httpx.Response(200, json={"ok": True}),
        httpx.Response(204),
        httpx.Response(201, content=b"1"),
    ],
)
def test_a_success_is_accepted_with_any_body(answer: httpx.Response):
    post(answer)


@pytest.mark.parametrize("page", [f"<!doctype html><a href='{URL}'>log in</a>", f"\n <html>{URL}", f"<?xml?>{URL}"])
def test_a_web_page_is_not_a_receipt_and_is_not_quoted(page: str):
    with pytest.raises(UnavailableError, match="answered 200 with a web page") as refused:
        post(httpx.Response(200, content=page.encode(), headers={"content-type": "text/html"}))
    assert "s3cret" not in str(refused.value)
