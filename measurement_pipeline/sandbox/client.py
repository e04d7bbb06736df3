"""Client of running doubles, for tests, the demo and the benchmark: addresses, keys, and the control routes below `/_`."""

import json
import ssl
from collections.abc import Mapping
from typing import Any, Self

import httpx

from measurement_pipeline.sandbox.catalogue import CATALOGUE, KnownRecording
from measurement_pipeline.sandbox.scenarios import Behaviour

_HITS = "/enterprise/v1/tracks/historic_stats"
_DEFAULT = Behaviour()


class SandboxClient:
    """Running doubles, in this process or another.

    Each method is one request. Raises httpx.HTTPStatusError if it is rejected.
    """

    def __init__(self, url: str, behaviour: Behaviour = _DEFAULT) -> None:
        self.environment = behaviour.environment(url)
        self.songstats_url = self.stripe_url = self.apify_url = self.spotify_url = url
        self.songstats_key = behaviour.songstats_key
        self.stripe_key = behaviour.stripe_key
        self.apify_token = behaviour.apify_token
        self.spotify_client_id = behaviour.spotify_client_id
        self.spotify_client_secret = behaviour.spotify_client_secret
        # http only, because the default would load all certificate authorities.
        no_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._http = httpx.Client(base_url=url, timeout=30, trust_env=False, verify=no_tls)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection; the doubles keep running."""
        self._http.close()

    def faults(self, path: str = "/", **fault: object) -> None:
        """Sets a fault: its fields are those of `sandbox.faults.Fault`."""
        self._call("POST", "/_faults", json={"path": path, **fault})

    def clear_faults(self) -> None:
        """Ends all faults."""
        self._call("DELETE", "/_faults")

    def requests(self, path: str = "/", *, isrc: str | None = None, since: int = 0) -> list[dict[str, Any]]:
        """The requests the vendors received, oldest first, as `sandbox.request_log.Received`."""
        found: list[dict[str, Any]] = self._call("GET", "/_requests", params=_query(path, isrc, since)).json()
        return found

    def hits(self, isrc: str | None = None) -> int:
        """Number of history requests to Songstats, whatever the response."""
        count: int = self._call("GET", "/_requests/count", params=_query(_HITS, isrc, 0)).json()["count"]
        return count

    def forget_requests(self) -> None:
        """Resets the request log."""
        self._call("DELETE", "/_requests")

    def know(self, catalogue: Mapping[str, KnownRecording]) -> None:
        """Adds recordings to the vendors. Their histories end at their play counts, which Spotify displays."""
        content = CATALOGUE.dump_json(dict(catalogue), exclude_none=True)
        self._call("POST", "/_catalogue", content=content)

    def actor(
        self, ends: str, message: str | None = None, *, count: int | None = None, seconds: float | None = None
    ) -> None:
        """Plans the end of the next `count` actor runs (None: all): SUCCEEDED, FAILED, TIMED-OUT or ABORTED."""
        self._call("POST", "/_actor", json={"ends": ends, "message": message, "count": count, "seconds": seconds})

    def actor_usage(self) -> dict[str, int]:
        """What Apify bills: `runs` started and their `albums`."""
        usage: dict[str, int] = self._call("GET", "/_actor").json()
        return usage

    def spotify_quota_exceeded(self, *, retry_after: int = 14 * 3600, count: int | None = None) -> None:
        """Sets a fault: the daily quota of the Web API is used up."""
        body = {"error": {"status": 429, "message": "API rate limit exceeded", "reason": "QUOTA_EXCEEDED"}}
        self.faults("/v1/tracks", status=429, retry_after=retry_after, body=json.dumps(body), count=count)

    def card(self, account: str, *, on_file: bool = True) -> str:
        """Gives an account's Stripe customer a card, or removes it. Returns the customer's id."""
        customer: str = self._call("POST", f"/_accounts/{account}/card", json={"card": on_file}).json()["id"]
        return customer

    def payment_method(
        self,
        account: str,
        kind: str = "card",
        *,
        expires: tuple[int, int] | None = None,
        wallet: str | None = None,
        default: bool = False,
    ) -> str:
        """Adds a payment method to an account's Stripe customer; `expires` is (year, month). Returns the customer's id."""
        body = {"type": kind, "expires": expires, "wallet": wallet, "default": default}
        customer: str = self._call("POST", f"/_accounts/{account}/payment_methods", json=body).json()["id"]
        return customer

    def belong_to(self, deployment: str) -> bool:
        """Selects the stored state of a deployment; returns whether there is any."""
        known: bool = self._call("POST", "/_deployment", json={"id": deployment}).json()["known"]
        return known

    def _call(self, method: str, path: str, **more: Any) -> httpx.Response:
        return self._http.request(method, path, **more).raise_for_status()


def _query(path: str, isrc: str | None, since: int) -> dict[str, str | int]:
    query: dict[str, str | int] = {"path": path, "since": since}
    return query if isrc is None else query | {"isrc": isrc}
