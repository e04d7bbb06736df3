"""What a test, the demo or the benchmark holds of running doubles.

Their addresses and keys, and their routes below `/_` as methods.
"""

import ssl
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import httpx

from measurement_pipeline.sandbox.behaviour import Behaviour
from measurement_pipeline.sandbox.catalogue import CATALOGUE, Known

_HITS = "/enterprise/v1/tracks/historic_stats"
_DEFAULT = Behaviour()


class Sandbox:
    """Running doubles, in this process or another.

    Each method is one request, and raises httpx.HTTPStatusError where it is refused.
    """

    def __init__(
        self,
        url: str,
        songstats_key: str = _DEFAULT.songstats_key,
        stripe_key: str = _DEFAULT.stripe_key,
    ) -> None:
        self.songstats_url = url
        self.stripe_url = url
        self.songstats_key = songstats_key
        self.stripe_key = stripe_key
        # Plain http: the default would load all certificate authorities first.
        no_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._http = httpx.Client(base_url=url, timeout=30, trust_env=False, verify=no_tls)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection to the doubles, which go on."""
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
        """How often Songstats was asked for a history, whatever it answered."""
        count: int = self._call("GET", "/_requests/count", params=_query(_HITS, isrc, 0)).json()["count"]
        return count

    def forget_requests(self) -> None:
        """Starts the counting of requests again."""
        self._call("DELETE", "/_requests")

    def know(self, catalogue: Mapping[str, Known]) -> None:
        """Tells Songstats of recordings: their histories end at their play counts."""
        content = CATALOGUE.dump_json(dict(catalogue), exclude_none=True)
        self._call("POST", "/_catalogue", content=content)

    def card(self, account: str, *, on_file: bool = True) -> str:
        """Gives an account's Stripe customer a card, or takes it away. The customer's id."""
        customer: str = self._call("POST", f"/_accounts/{account}/card", json={"card": on_file}).json()["id"]
        return customer

    def _call(self, method: str, path: str, **more: Any) -> httpx.Response:
        return self._http.request(method, path, **more).raise_for_status()


def _query(path: str, isrc: str | None, since: int) -> dict[str, str | int]:
    query: dict[str, str | int] = {"path": path, "since": since}
    return query if isrc is None else query | {"isrc": isrc}
