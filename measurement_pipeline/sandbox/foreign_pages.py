"""Answers that something other than the vendor gives: a CDN, a proxy, a captive portal or a gateway. A fault can name one."""

from dataclasses import dataclass
from enum import StrEnum


class Foreign(StrEnum):
    """Who answers instead of the vendor."""

    CHALLENGE = "challenge"
    """A CDN wants to see a browser: 403, HTML."""
    PROXY = "proxy"
    """A proxy does not find the address: 404, HTML."""
    PORTAL = "portal"
    """The network wants a login before it lets anything through: 200, HTML."""
    PORTAL_REDIRECT = "portal redirect"
    """The same, by a redirect to its login page: 302, an empty body."""
    LOGIN = "login"
    """A proxy wants credentials of its own: 401, HTML."""
    GATEWAY = "gateway"
    """A gateway has failed: 500, HTML."""
    JSON = "json"
    """An API gateway refuses in JSON of its own: 403."""


@dataclass(frozen=True, slots=True)
class Page:
    """One whole answer. Header names are lower case."""

    status: int
    body: str
    headers: dict[str, str]


def _html(title: str, text: str) -> str:
    return f'<!doctype html>\n<html lang="en"><head><title>{title}</title></head><body><h1>{text}</h1></body></html>\n'


def _page(status: int, title: str, text: str, **headers: str) -> Page:
    return Page(status, _html(title, text), {"content-type": "text/html; charset=UTF-8", **headers})


PAGES = {
    Foreign.CHALLENGE: _page(
        403, "Just a moment...", "Verify you are human by completing the action below.", server="cdn"
    ),
    Foreign.PROXY: _page(404, "404 Not Found", "The requested URL was not found on this server."),
    Foreign.PORTAL: _page(200, "Welcome", "Log in to use this network."),
    Foreign.PORTAL_REDIRECT: Page(302, "", {"location": "http://portal.invalid/login"}),
    Foreign.LOGIN: _page(401, "Authorization Required", "This proxy requires authorization."),
    Foreign.GATEWAY: _page(500, "Internal Server Error", "The server encountered an error."),
    Foreign.JSON: Page(
        403, '{"message": "Forbidden"}', {"content-type": "application/json", "x-amzn-errortype": "Forbidden"}
    ),
}
