"""A callback goes to a public address that was checked, and nowhere else."""

import asyncio
from collections.abc import Sequence

import httpx
import pytest

from measurement_pipeline.vendors.callback import CallbackSender
from measurement_pipeline.vendors.errors import UnavailableError

URL = "https://client.example.com:8443/done?token=s3cret"
PUBLIC, OTHER = "93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"


class Receiver(httpx.AsyncBaseTransport):
    """Records requests and answers with a status; `seconds`: after that time."""

    def __init__(self, status: int = 200, *, seconds: float = 0.0) -> None:
        self.status, self.seconds = status, seconds
        self.requests: list[httpx.Request] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        await asyncio.sleep(self.seconds)
        return httpx.Response(self.status, headers={"location": "http://127.0.0.1/"})


def send(
    receiver: Receiver, *addresses: str, url: str = URL, seconds: float = 60.0, allow_loopback: bool = False
) -> int:
    async def resolve(_host: str, _port: int) -> Sequence[str]:
        return addresses

    sender = CallbackSender(allow_loopback=allow_loopback, seconds=seconds, resolve=resolve, transport=receiver)
    return asyncio.run(sender.send(url, b"{}", {"measurement-signature": "t=1,v1=2"}))


def test_the_connection_goes_to_the_checked_address_and_the_certificate_is_checked_for_the_name():
    receiver = Receiver()
    assert send(receiver, OTHER, PUBLIC) == 200
    (request,) = receiver.requests
    assert str(request.url) == f"https://{PUBLIC}:8443/done?token=s3cret"
    assert request.extensions["sni_hostname"] == "client.example.com"
    assert request.headers["host"] == "client.example.com:8443"
    assert request.headers["measurement-signature"] == "t=1,v1=2"


@pytest.mark.parametrize("addresses", [("10.0.0.1",), (PUBLIC, "169.254.169.254"), ("::ffff:127.0.0.1",), ()])
def test_a_name_with_an_address_inside_a_network_is_refused(addresses: tuple[str, ...]):
    receiver = Receiver()
    with pytest.raises(UnavailableError, match="not public"):
        send(receiver, *addresses)
    assert receiver.requests == []


def test_a_redirect_is_an_answer_and_not_followed():
    receiver = Receiver(302)
    assert send(receiver, PUBLIC) == 302
    assert len(receiver.requests) == 1


def test_a_slow_receiver_is_given_up_and_no_error_names_the_address():
    with pytest.raises(UnavailableError) as refused:
        send(Receiver(seconds=60), PUBLIC, seconds=0.01)
    assert "s3cret" not in str(refused.value)


def test_only_a_sandbox_sends_to_a_loopback_address():
    receiver = Receiver()
    with pytest.raises(UnavailableError, match="not public"):
        send(receiver, "127.0.0.1", url="http://127.0.0.1:8000/")
    assert send(receiver, url="http://127.0.0.1:8000/", allow_loopback=True) == 200
    # A name that resolves to one is refused all the same.
    with pytest.raises(UnavailableError, match="not public"):
        send(receiver, "127.0.0.1", allow_loopback=True)
