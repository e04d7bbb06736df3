"""Official clients of the vendors, and a bare HTTP client, for the doubles."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import stripe

from measurement_pipeline.sandbox import SandboxClient

# Plain HTTP: loading the authorities for each request would take longer than the request.
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def request_history(sandbox: SandboxClient, isrc: str, **params: str) -> httpx.Response:
    """Request a history."""
    return httpx.get(
        f"{sandbox.songstats_url}/enterprise/v1/tracks/historic_stats",
        params={"isrc": isrc, "source": "spotify"} | params,
        headers={"apikey": sandbox.songstats_key},
        timeout=60,
        verify=NO_TLS,
    )


def spotify_points(answer: httpx.Response) -> list[dict[str, Any]]:
    """The points of the source `spotify` in a response."""
    (entry,) = [entry for entry in answer.json()["stats"] if entry["source"] == "spotify"]
    points: list[dict[str, Any]] = entry["data"]["history"]
    return points


@contextmanager
def stripe_client(sandbox: SandboxClient, key: str | None = None, retries: int = 0) -> Iterator[Any]:
    """Stripe's own client; its connections close when the block ends.

    The type is Any, because Stripe's types make nearly everything optional and its parameters are typed dictionaries.
    """
    http = stripe.HTTPXClient(allow_sync_methods=True)
    yield stripe.StripeClient(
        key or sandbox.stripe_key,
        base_addresses={"api": sandbox.stripe_url},
        http_client=http,
        max_network_retries=retries,
    )
    http.close()  # type: ignore[no-untyped-call]
