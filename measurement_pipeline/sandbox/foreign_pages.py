"""Responses of something other than the vendor: a CDN, a proxy, a captive portal or a gateway. A fault selects one."""

from dataclasses import dataclass
from enum import StrEnum


class ForeignSender(StrEnum):
    """What answers instead of the vendor."""

    CHALLENGE = "challenge"
    """A CDN requires a browser check: 403, HTML."""
    PROXY = "proxy"
    """A proxy does not find the address: 404, HTML."""
    PORTAL = "portal"
    """A captive portal requires a login: 200, HTML."""
    PORTAL_REDIRECT = "portal redirect"
    """A captive portal redirects to its login page: 302, empty body."""
    LOGIN = "login"
    """A proxy requires credentials: 401, HTML."""
    GATEWAY = "gateway"
    """A gateway has failed: 500, HTML."""
    JSON = "json"
    """An API gateway refuses in JSON of its own: 403."""


@dataclass(frozen=True, slots=True)
class ForeignPage:
    """A complete response. Header names are lower case."""

    status: int
    body: str
    headers: dict[str, str]


def _html(title: str, text: str) -> str:
    return f'<!doctype html>\n<html lang="en"><head><title>{title}</title></head><body><h1>{text}</h1></body></html>\n'


def _page(status: int, title: str, text: str, **headers: str) -> ForeignPage:
    return ForeignPage(status, _html(title, text), {"content-type": "text/html; charset=UTF-8", **headers})


PAGES = {
    ForeignSender.CHALLENGE: _page(
        403, "Just a moment...", "Verify you are human by completing the action below.", server="cdn"
    ),
    ForeignSender.PROXY: _page(404, "404 Not Found", "The requested URL was not found on this server."),
    ForeignSender.PORTAL: _page(200, "Welcome", "Log in to use this network."),
    ForeignSender.PORTAL_REDIRECT: ForeignPage(302, "", {"location": "http://portal.invalid/login"}),
    ForeignSender.LOGIN: _page(401, "Authorization Required", "This proxy requires authorization."),
    ForeignSender.GATEWAY: _page(500, "Internal Server Error", "The server encountered an error."),
    ForeignSender.JSON: ForeignPage(
        403, '{"message": "Forbidden"}', {"content-type": "application/json", "x-amzn-errortype": "Forbidden"}
    ),
}
