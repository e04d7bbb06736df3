"""Format and digest of API keys. Storage is in `postgres/api_keys`.

A key is `mp_<prefix>_<secret>`. The prefix identifies the key in lists and logs; the secret has 256 bits.
"""

import hashlib
import hmac
import re
import secrets

_KEY = re.compile(r"(mp_[A-Za-z0-9]{8})_[A-Za-z0-9_-]{43}")
# Without characters that are easily confused, such as O and 0.
_ALPHABET = "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnpqrstuvwxyz23456789"


def generate_key() -> tuple[str, str]:
    """Return a new random key and its prefix."""
    prefix = f"mp_{''.join(secrets.choice(_ALPHABET) for _ in range(8))}"
    return f"{prefix}_{secrets.token_urlsafe(32)}", prefix


def parse_prefix(key: str) -> str | None:
    """Return the key's prefix, or None if the text does not have the format of a key."""
    match = _KEY.fullmatch(key)
    return None if match is None else match[1]


def hash_key(key: str, *, secret: str) -> bytes:
    """Return the digest to store. Without the server's secret, a copy of the table is useless."""
    return hmac.digest(secret.encode(), key.encode(), hashlib.sha256)


def matches_digest(key: str, digest: bytes, *, secret: str) -> bool:
    """Compare a key with a stored digest in constant time."""
    return hmac.compare_digest(hash_key(key, secret=secret), digest)
