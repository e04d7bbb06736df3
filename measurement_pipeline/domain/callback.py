"""Callbacks of requests: which addresses are allowed, how a callback is signed, and when it is sent again. Pure."""

import hmac
import re
from hashlib import sha256
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from urllib.parse import urlsplit

from measurement_pipeline.domain.backoff import exponential_backoff

SIGNATURE_HEADER = "Measurement-Signature"
MAX_URL_LENGTH = 2048
BAD_URL = f"callback_url must be https://host/path of at most {MAX_URL_LENGTH:,} characters, without login and fragment"

_VISIBLE = re.compile(r"[!-~]+")
_RETRY_SECONDS = 60.0
_MAX_RETRY_SECONDS = 6 * 3600.0
# NAT64: the last 32 bits are an IPv4 address, which can be a private one.
_NAT64 = IPv6Network("64:ff9b::/96")


def is_callback_url(value: object) -> bool:
    """Whether `value` has the form of a callback address. A loopback address may use http: only a sandbox sends to it."""
    if not isinstance(value, str) or len(value) > MAX_URL_LENGTH or not _VISIBLE.fullmatch(value):
        return False
    try:
        url = urlsplit(value)
        port = url.port
    except ValueError:
        return False
    if not url.hostname or port == 0 or "@" in url.netloc or "#" in value or "\\" in value:
        return False
    return url.scheme == "https" or (url.scheme == "http" and is_loopback(url.hostname))


def is_loopback(host: str) -> bool:
    """Whether `host` is a loopback address, written as an IP address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether an address belongs to the public internet, also where it embeds an IPv4 address."""
    if isinstance(address, IPv6Address):
        teredo = address.teredo
        nat64 = IPv4Address(int(address) & 0xFFFFFFFF) if address in _NAT64 else None
        embedded = address.ipv4_mapped or address.sixtofour or nat64 or (None if teredo is None else teredo[1])
        if embedded is not None:
            return is_public(embedded)
    return address.is_global and not address.is_multicast and not address.is_reserved


def account_secret(secret: str, account: object) -> str:
    """The secret of one account: the key of its signatures. No account can sign a callback to another."""
    return f"whsec_{hmac.new(secret.encode(), f'callbacks of {account}'.encode(), sha256).hexdigest()}"


def sign(body: bytes, *, key: str, timestamp: int) -> str:
    """The value of the signature header: `t=<Unix time>,v1=<HMAC-SHA-256 of "<time>.<body>", hex>`."""
    digest = hmac.new(key.encode(), f"{timestamp}.".encode() + body, sha256).hexdigest()
    return f"t={timestamp},v1={digest}"


def seconds_until_retry(attempts: int) -> float:
    """Seconds until the next attempt after `attempts` failed ones: from a minute to six hours."""
    return exponential_backoff(attempts - 1, first_seconds=_RETRY_SECONDS, max_seconds=_MAX_RETRY_SECONDS)
