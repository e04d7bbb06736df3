"""Sends one callback to an address that a client chose.

Such an address must not reach inside the deployment's network. So the name is resolved at each send, every address of it must be
public, and the connection goes to a checked address: a second resolution could give another one (DNS rebinding). The certificate
is checked against the name. No redirect is followed, no proxy used, and no body read.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from ipaddress import ip_address
from urllib.parse import urlsplit

import httpx

from measurement_pipeline.domain.callback import is_callback_url, is_loopback, is_public
from measurement_pipeline.vendors.errors import UnavailableError
from measurement_pipeline.vendors.http import USER_AGENT, new_tls_context

_TIMEOUT_SECONDS = 10.0

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]


async def resolve_host(host: str, port: int) -> Sequence[str]:
    """The IP addresses of `host`. Raises `OSError`."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[4][0]) for address in found))


class CallbackSender:
    """Sends callbacks. `allow_loopback`: also to an address such as http://127.0.0.1:8000, for a sandbox.

    `resolve` and `transport` let tests simulate a resolver and a receiver.
    """

    def __init__(
        self,
        *,
        allow_loopback: bool = False,
        seconds: float = _TIMEOUT_SECONDS,
        resolve: Resolve = resolve_host,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._allow_loopback = allow_loopback
        self._seconds = seconds
        self._resolve = resolve
        self._transport = transport

    async def send(self, url: str, body: bytes, headers: Mapping[str, str]) -> int:
        """Post `body`; returns the receiver's status code. Raises `UnavailableError`, whose text does not contain the URL."""
        try:
            async with asyncio.timeout(self._seconds):
                return await self._send(url, body, headers)
        except TimeoutError:
            raise UnavailableError(f"the receiver did not answer within {self._seconds:g} s") from None
        except httpx.HTTPError as error:
            # Without its cause, whose request contains the URL.
            raise UnavailableError(f"the receiver cannot be reached ({type(error).__name__})") from None

    async def _send(self, url: str, body: bytes, headers: Mapping[str, str]) -> int:
        if not is_callback_url(url):
            raise UnavailableError("callback_url is not an https address")
        parts = urlsplit(url)
        host = str(parts.hostname)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        address = await self._checked_address(host, port)
        target = httpx.URL(url).copy_with(host=address)
        request = httpx.Request(
            "POST",
            target,
            content=body,
            headers={"user-agent": USER_AGENT, "content-type": "application/json", **headers, "host": parts.netloc},
            # The name that the certificate must carry.
            extensions={"sni_hostname": host},
        )
        transport = self._transport or httpx.AsyncHTTPTransport(verify=new_tls_context(target))
        async with transport:
            response = await transport.handle_async_request(request)
            try:
                return response.status_code
            finally:
                await response.aclose()

    async def _checked_address(self, host: str, port: int) -> str:
        if is_loopback(host) and self._allow_loopback:
            return host
        try:
            found = await self._resolve(host, port)
        except (OSError, UnicodeError):
            raise UnavailableError("the host of callback_url cannot be resolved") from None
        # The zone of a link-local address is no part of it.
        addresses = [ip_address(one.partition("%")[0]) for one in found]
        if not addresses or not all(map(is_public, addresses)):
            raise UnavailableError("the host of callback_url has an address that is not public")
        # IPv4 first: many hosts have no route for IPv6.
        return str(min(addresses, key=lambda one: one.version))
