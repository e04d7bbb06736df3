"""Exponential backoff: the one formula for every wait that doubles."""

# Enough doublings to reach any maximum; 2.0 ** 1024 would overflow.
_MAX_DOUBLINGS = 64


def exponential_backoff(retries: int, *, first_seconds: float, max_seconds: float) -> float:
    """Seconds to wait before the next attempt: `first_seconds` doubled `retries` times, `max_seconds` at most."""
    return min(first_seconds * 2.0 ** min(max(retries, 0), _MAX_DOUBLINGS), max_seconds)
