"""Runs of the actor that reads Spotify's play counts: start one, poll it, find a lost one, download its result.

The client never repeats a request and never waits between two. The run that claimed the albums decides on the next request.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from http import HTTPStatus
from typing import Self
from urllib.parse import quote, urlsplit

import httpx

from measurement_pipeline.vendors.apify.runs import (
    ActorRun,
    RunStatus,
    parse_json,
    read_data,
    read_run,
    read_run_list,
    read_text,
    unexpected,
)
from measurement_pipeline.vendors.apify.web_api import ApifyWebApi
from measurement_pipeline.vendors.errors import (
    IncompleteResultError,
    NotVisibleError,
    RequestRejectedError,
    UnavailableError,
    UnexpectedResponseError,
)

__all__ = ["ACTOR", "ActorRun", "ApifyClient", "RunStatus"]

ACTOR = "beatanalytics~spotify-play-count-scraper"

# The largest expected difference between Apify's clock and the database's.
_MAX_CLOCK_DIFFERENCE = timedelta(hours=1)
_RUNS_PER_PAGE = 1000
# Apify itself waits no longer than this for a run to end.
_MAX_SERVER_WAIT_SECONDS = 60


class ApifyClient:
    """One actor, run with one token. Every method raises a VendorError if there is no usable response.

    `base_url` is scheme and host; `/v2/…` is added. `max_usd_per_album`: what a run may charge for each of its albums; None or
    0: no limit. Raises ValueError, which does not contain the token, for an unusable setting.
    """

    def __init__(
        self,
        token: str,
        *,
        base_url: str,
        timeout_seconds: float = 30,
        actor: str = ACTOR,
        max_usd_per_album: Decimal | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._timeout_seconds = timeout_seconds
        self._max_usd_per_album = max_usd_per_album
        self._web_api = ApifyWebApi(token, base_url=base_url, transport=transport)
        root = self._web_api.base_url
        self._root = root if urlsplit(root).path.endswith("/v2") else f"{root}/v2"
        self._runs_url = f"{self._root}/actors/{quote(actor, safe='~')}/runs"

    def start_run(self, album_ids: Sequence[str]) -> ActorRun:
        """Start a run for these albums. One request, never repeated here: Apify charges for each one that it receives."""
        if not album_ids:
            raise ValueError("expected at least one album to capture")
        urls = [{"url": album_url(album)} for album in album_ids]
        per_album = self._max_usd_per_album
        cap = None if not per_album else {"maxTotalChargeUsd": f"{per_album * len(album_ids):f}"}
        response = self._web_api.request(
            "POST", self._runs_url, params=cap, timeout_seconds=self._timeout_seconds, body={"urls": urls}
        )
        try:
            return read_run(read_data(response.content))
        except UnexpectedResponseError as error:
            error.may_have_been_received = True
            raise

    def get_run(self, run_id: str, *, wait_seconds: float = 0) -> ActorRun:
        """A run as it is now, or as it ends within `wait_seconds`, of which Apify waits 60 at most. Free."""
        wait = min(int(wait_seconds), _MAX_SERVER_WAIT_SECONDS)
        url = f"{self._root}/actor-runs/{quote(run_id, safe='')}"
        try:
            response = self._get(url, {"waitForFinish": wait} if wait > 0 else None, wait_seconds=wait)
        except RequestRejectedError as error:
            raise _not_visible(error, f"run {run_id}") from error
        return read_run(read_data(response.content))

    def list_newest_run(self) -> None:
        """List one run, which shows whether the token may. Free."""
        read_run_list(self._get(self._runs_url, {"desc": 1, "limit": 1}).content)

    def find_run(self, album_ids: Sequence[str], *, since: datetime, exclude: Collection[str] = ()) -> ActorRun | None:
        """The newest run started after `since` for exactly these albums; None if there is none.

        `exclude`: runs that belong to another capture. Raises also if the input of a run cannot be read: it could be this one.
        """
        wanted = {album_url(album) for album in album_ids}
        earliest = since - _MAX_CLOCK_DIFFERENCE
        seen: set[str] = set()
        while True:
            page = {"desc": 1, "limit": _RUNS_PER_PAGE, "offset": len(seen)}
            items = read_run_list(self._get(self._runs_url, page).content)
            seen_before = len(seen)
            for item in items:
                run = read_run(item)
                if run.started_at is None:
                    raise unexpected(f"run {run.id} has no start time")
                if run.started_at < earliest:
                    return None
                if run.id not in seen and run.id not in exclude and self._input_urls(run, item) == wanted:
                    return run
                seen.add(run.id)
            if len(seen) == seen_before:
                return None

    def download_items(self, run: ActorRun) -> bytes:
        """All items of a run as received. Raises IncompleteResultError if some of them are not readable yet."""
        if run.dataset_id is None:
            raise unexpected(f"run {run.id} has no dataset")
        dataset_url = f"{self._root}/datasets/{quote(run.dataset_id, safe='')}"
        expected = self._item_count(dataset_url)
        pages: list[bytes] = []
        count = 0
        while True:
            response = self._get(f"{dataset_url}/items", {"format": "json", "offset": count})
            items = parse_json(response.content)
            if not isinstance(items, list):
                raise unexpected(f"expected the items of run {run.id} as a list")
            total = _parse_total(response.headers.get("x-apify-pagination-total"))
            expected = max(expected, total)
            count += len(items)
            pages.append(response.content)
            if not items or count >= total:
                break
        if len(pages) > 1 and count > total:
            raise unexpected(f"the pages of run {run.id} overlap: {count} items of {total}")
        if count < expected:
            raise IncompleteResultError(f"Apify shows {count} of the {expected} items of run {run.id} so far")
        return _join_pages(pages)

    def close(self) -> None:
        """Close the connections."""
        self._web_api.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _input_urls(self, run: ActorRun, item: object) -> set[str]:
        """The album URLs that a run was started with. Its input can contain more, because Apify adds defaults."""
        store = read_text(item, "defaultKeyValueStoreId")
        if store is None:
            raise unexpected(f"run {run.id} has no key-value store")
        try:
            response = self._get(f"{self._root}/key-value-stores/{quote(store, safe='')}/records/INPUT")
        except RequestRejectedError as error:
            raise _not_visible(error, f"the input of run {run.id}") from error
        run_input = parse_json(response.content)
        urls = run_input.get("urls") if isinstance(run_input, dict) else None
        return {url for entry in urls if (url := read_text(entry, "url"))} if isinstance(urls, list) else set()

    def _item_count(self, dataset_url: str) -> int:
        """Apify's item count of a dataset; 0 if Apify does not report one."""
        try:
            dataset = read_data(self._get(dataset_url).content)
        except RequestRejectedError:
            return 0
        count = dataset.get("itemCount") if isinstance(dataset, dict) else None
        return count if type(count) is int else 0

    def _get(self, url: str, params: Mapping[str, object] | None = None, *, wait_seconds: float = 0) -> httpx.Response:
        timeout = self._timeout_seconds + wait_seconds
        return self._web_api.request("GET", url, timeout_seconds=timeout, params=params)


def album_url(album_id: str) -> str:
    """Spotify's page of an album, which is the actor's input."""
    return f"https://open.spotify.com/album/{quote(album_id, safe='')}"


def _not_visible(error: RequestRejectedError, what: str) -> RequestRejectedError | UnavailableError:
    """A 404 for an existing object means that Apify's replicas lag behind for some seconds."""
    if error.status_code != HTTPStatus.NOT_FOUND:
        return error
    return NotVisibleError(f"Apify does not show {what} ({error})")


def _parse_total(text: str | None) -> int:
    return int(text) if text and text.isascii() and text.isdecimal() and len(text) < 10 else 0


def _join_pages(pages: list[bytes]) -> bytes:
    """One JSON list made of several. A single page stays as it was received."""
    if len(pages) == 1:
        return pages[0]
    contents = (page.strip()[1:-1].strip() for page in pages)
    return b"[" + b",".join(content for content in contents if content) + b"]"
