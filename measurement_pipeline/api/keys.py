"""What a key of the API looks like, and its digest. Pure: where keys are kept is `postgres/api_keys`.

`mp_<prefix>_<secret>`: the prefix tells keys from each other in lists and logs, the secret has 256 bits.
"""

import hashlib
import hmac
import re
import secrets

_KEY = re.compile(r"(mp_[A-Za-z0-9]{8})_[A-Za-z0-9_-]{43}")
_ALPHABET = "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnpqrstuvwxyz23456789"


def new_key() -> tuple[str, str]:
    """A key that nobody has, and how it begins."""
    prefix = f"mp_{''.join(secrets.choice(_ALPHABET) for _ in range(8))}"
    return f"{prefix}_{secrets.token_urlsafe(32)}", prefix


def prefix_of(key: str) -> str | None:
    """How the key begins; None where it is no key of this API."""
    found = _KEY.fullmatch(key)
    return None if found is None else found[1]


def digest(key: str, *, secret: str) -> bytes:
    """What is kept of a key: without the server's secret, a copy of the table tells nothing."""
    return hmac.digest(secret.encode(), key.encode(), hashlib.sha256)


def is_key(key: str, kept: bytes, *, secret: str) -> bool:
    """Whether `kept` is that key's digest, in a time that does not tell how much of it is."""
    return hmac.compare_digest(digest(key, secret=secret), kept)
