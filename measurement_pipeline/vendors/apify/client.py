"""Runs of the actor that reads Spotify's play counts: start one, look at it, find a lost one, fetch what it found.

Nothing here repeats a request or waits between two; whoever claimed the albums decides about another. The library's own resource
classes are left aside: they refuse a whole run object for one field that they do not know, after the run has been paid for.
"""

import re
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlsplit

import httpx

from measurement_pipeline.vendors.apify import runs
from measurement_pipeline.vendors.apify.errors import (
    NotAllThereYetError,
    NotSeenError,
    RejectedError,
    UnavailableError,
)
from measurement_pipeline.vendors.apify.runs import ActorRun, RunStatus
from measurement_pipeline.vendors.http import VendorHttpClient

__all__ = ["ACTOR", "ActorRun", "ApifyClient", "RunStatus"]

ACTOR = "beatanalytics~spotify-play-count-scraper"

# How far Apify's clock and the database's may lie apart.
_CLOCK_DIFFERENCE = timedelta(hours=1)
_RUNS_A_PAGE = 1000
# Apify itself waits no longer than this for a run to end.
_LONGEST_WAIT_SECONDS = 60


class ApifyClient:
    """One actor, run with one token. Every method raises an ApifyError where there is no answer that serves.

    `base_url` is scheme and host, to which `/v2/…` is added. Raises ValueError, which never holds the token, where a setting
    cannot be used.
    """

    def __init__(
        self,
        token: str,
        *,
        base_url: str,
        timeout_seconds: float = 30,
        actor: str = ACTOR,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        # Here, and not above: loading the library takes a process that never captures half a second.
        from measurement_pipeline.vendors.apify.transport import OutboundTransport

        if not re.fullmatch(r"[!-~]+", token):
            raise ValueError("the Apify token is empty or holds characters that no header can carry")
        self._timeout_seconds = timeout_seconds
        self._outbound = VendorHttpClient(base_url, transport=transport)
        self._http = OutboundTransport(token, self._outbound)
        root = self._outbound.base_url
        self._root = root if urlsplit(root).path.endswith("/v2") else f"{root}/v2"
        self._runs_url = f"{self._root}/actors/{quote(actor, safe='~')}/runs"

    def start_run(self, album_ids: Sequence[str]) -> ActorRun:
        """Start a run for these albums: one request, never repeated here, since each one that arrives is paid for."""
        if not album_ids:
            raise ValueError("expected at least one album to capture")
        urls = [{"url": album_url(album)} for album in album_ids]
        body = self._ask("POST", self._runs_url, json={"urls": urls})
        try:
            return runs.read_run(runs.read_data(body))
        except UnavailableError as odd:
            raise UnavailableError(str(odd), may_have_been_received=True) from odd

    def get_run(self, run_id: str, *, wait_seconds: float = 0) -> ActorRun:
        """A run as it stands, or as it ends within `wait_seconds`, of which Apify waits 60 at most. Free."""
        wait = min(int(wait_seconds), _LONGEST_WAIT_SECONDS)
        try:
            body = self._ask(
                "GET",
                f"{self._root}/actor-runs/{quote(run_id, safe='')}",
                params={"waitForFinish": wait} if wait > 0 else None,
                wait_seconds=wait,
            )
        except RejectedError as error:
            raise _not_seen(error, f"run {run_id}") from error
        return runs.read_run(runs.read_data(body))

    def list_newest_run(self) -> None:
        """Ask for the newest run, whichever it is: for whether the token may. Free."""
        runs.read_run_list(self._ask("GET", self._runs_url, params={"desc": True, "limit": 1}))

    def find_run(self, album_ids: Sequence[str], *, since: datetime, exclude: Collection[str] = ()) -> ActorRun | None:
        """The newest run that was started since then for just these albums, or None where there is none.

        `exclude` are runs that are somebody's already. Raises also where one of them cannot be looked into: it could be this.
        """
        wanted = {album_url(album) for album in album_ids}
        earliest = since - _CLOCK_DIFFERENCE
        seen: set[str] = set()
        while True:
            items = runs.read_run_list(
                self._ask("GET", self._runs_url, params={"desc": True, "limit": _RUNS_A_PAGE, "offset": len(seen)})
            )
            before = len(seen)
            for item in items:
                run = runs.read_run(item)
                if run.started_at is None:
                    raise UnavailableError(f"Apify does not say when its run {run.id} was started")
                if run.started_at < earliest:
                    return None
                if run.id not in seen and run.id not in exclude and self._urls_of(run, item) == wanted:
                    return run
                seen.add(run.id)
            if len(seen) == before:
                return None

    def download_items(self, run: ActorRun) -> bytes:
        """The items of a run, whole and as received. Raises NotAllThereYetError where some cannot be read yet."""
        if run.dataset_id is None:
            raise UnavailableError(f"Apify does not say where its run {run.id} keeps what it found")
        dataset = f"{self._root}/datasets/{quote(run.dataset_id, safe='')}"
        promised = self._item_count(dataset)
        pages: list[bytes] = []
        count = 0
        while True:
            answer = self._answer("GET", f"{dataset}/items", params={"format": "json", "offset": count})
            items = runs.parse_json(answer.content)
            if not isinstance(items, list):
                raise UnavailableError(f"what Apify's run {run.id} found cannot be read: expected a list")
            total = _number(answer.headers.get("x-apify-pagination-total"))
            promised = max(promised, total)
            count += len(items)
            pages.append(answer.content)
            if not items or count >= total:
                break
        if len(pages) > 1 and count > total:
            raise UnavailableError(f"the pages of what Apify's run {run.id} found overlap: {count} items of {total}")
        if count < promised:
            raise NotAllThereYetError(f"{count} of the {promised} items of Apify's run {run.id} are there yet")
        return _joined(pages)

    def close(self) -> None:
        """Close the connections."""
        self._outbound.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _urls_of(self, run: ActorRun, item: object) -> set[str]:
        """The addresses that a run was started with. Its input may hold more: Apify fills in defaults."""
        store = runs.read_text(item, "defaultKeyValueStoreId")
        if store is None:
            raise UnavailableError(f"Apify does not say where its run {run.id} keeps its input")
        try:
            body = self._ask("GET", f"{self._root}/key-value-stores/{quote(store, safe='')}/records/INPUT")
        except RejectedError as error:
            raise _not_seen(error, f"the input of run {run.id}") from error
        found = runs.parse_json(body)
        urls = found.get("urls") if isinstance(found, dict) else None
        return {url for entry in urls if (url := runs.read_text(entry, "url"))} if isinstance(urls, list) else set()

    def _item_count(self, dataset: str) -> int:
        """How many items Apify counts in a dataset; 0 where it does not say."""
        try:
            found = runs.read_data(self._ask("GET", dataset))
        except RejectedError:
            return 0
        count = found.get("itemCount") if isinstance(found, dict) else None
        return count if type(count) is int else 0

    def _ask(self, method: str, url: str, **more: Any) -> bytes:
        content: bytes = self._answer(method, url, **more).content
        return content

    def _answer(self, method: str, url: str, *, wait_seconds: float = 0, **more: Any) -> Any:
        patience = timedelta(seconds=self._timeout_seconds + wait_seconds)
        return self._http.call(method=method, url=url, timeout=patience, **more)


def album_url(album_id: str) -> str:
    """Where Spotify shows an album: what the actor takes for it."""
    return f"https://open.spotify.com/album/{quote(album_id, safe='')}"


def _not_seen(error: RejectedError, what: str) -> RejectedError | UnavailableError:
    """A 404 for what is known to exist is Apify's copies lagging behind, for some seconds: no answer."""
    if error.status_code != HTTPStatus.NOT_FOUND:
        return error
    return NotSeenError(f"Apify does not see {what} ({error})")


def _number(text: str | None) -> int:
    return int(text) if text and text.isascii() and text.isdecimal() and len(text) < 10 else 0


def _joined(pages: list[bytes]) -> bytes:
    """One JSON list of several; a single one stays as it was received."""
    if len(pages) == 1:
        return pages[0]
    inner = (page.strip()[1:-1].strip() for page in pages)
    return b"[" + b",".join(part for part in inner if part) + b"]"
