"""Looks tracks up at Spotify: which are found, which are unknown, and which are deferred.

A request asks for fifty tracks, or for one if Spotify does not allow this client to ask for several.
"""

import re
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any, Self

import httpx

from measurement_pipeline.domain.capture import SpotifyTrack
from measurement_pipeline.vendors.errors import UnexpectedResponseError
from measurement_pipeline.vendors.http import VendorHttpClient
from measurement_pipeline.vendors.spotify.lookup_batch import LookupBatch
from measurement_pipeline.vendors.spotify.responses import (
    describe_message,
    is_own_error,
    read_json,
    read_track_list,
)
from measurement_pipeline.vendors.spotify.tracks import read_requested_track
from measurement_pipeline.vendors.spotify.web_api import SpotifyWebApi

_BATCH_SIZE = 50
_TRACK_ID = re.compile(r"[0-9A-Za-z]{22}")
# A 400 with "Invalid base62 id" means that the track cannot exist; any other 400 means that the request is wrong.
_ABOUT_THE_ID = re.compile(r"\bid\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class LookupResult:
    """The result for each requested track, which is in exactly one of `found`, `unknown` and `deferred`.

    `found` is keyed by the requested id; Spotify may return the track under another id. `unknown`: Spotify has no such track.
    `deferred`: not requested, or no usable response, for `reason`. `retry_after_seconds`: how long Spotify asks to wait.
    """

    found: dict[str, SpotifyTrack]
    unknown: frozenset[str]
    deferred: frozenset[str]
    retry_after_seconds: float | None
    reason: str | None


class SpotifyClient:
    """Looks tracks up with a client's own credentials. One lookup sleeps `max_wait_seconds` in total at most.

    `api_base` and `accounts_base` are scheme and host. Raises ValueError, which does not contain the secret, for an unusable
    setting.
    """

    def __init__(
        self,
        client_id: str,
        client_secret: str,
        *,
        api_base: str,
        accounts_base: str,
        timeout_seconds: float = 20,
        sleep: Callable[[float], None] = time.sleep,
        max_wait_seconds: float = 30,
        workers: int = 8,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._web_api = SpotifyWebApi(
            client_id,
            client_secret,
            api=VendorHttpClient(api_base, transport=transport),
            accounts=VendorHttpClient(accounts_base, transport=transport),
            timeout_seconds=timeout_seconds,
        )
        self._sleep = sleep
        self._max_wait_seconds = max_wait_seconds
        self._workers = workers
        # Remembered: apps in development mode get 403 for several tracks at once, and the batch form may be removed.
        self._needs_single_requests = False

    def look_up(self, track_ids: Sequence[str]) -> LookupResult:
        """Look these tracks up. Raises CredentialsRejectedError; any other failure defers the remaining tracks."""
        requested = tuple(dict.fromkeys(track_ids))
        batch = LookupBatch(self._sleep, self._max_wait_seconds)
        # Spotify rejects a whole request for one id of another form.
        batch.unknown.update(track for track in requested if not _TRACK_ID.fullmatch(track))
        ids = [track for track in requested if track not in batch.unknown]
        groups = [ids[start : start + _BATCH_SIZE] for start in range(0, len(ids), _BATCH_SIZE)]
        self._for_each(self._request_group, batch, groups)
        self._for_each(self._request_single, batch, batch.single_ids)
        deferred = frozenset(ids) - batch.found.keys() - batch.unknown
        return LookupResult(
            found=batch.found,
            unknown=frozenset(batch.unknown),
            deferred=deferred,
            retry_after_seconds=batch.retry_after_seconds if deferred else None,
            reason=batch.reason if deferred else None,
        )

    def close(self) -> None:
        """Close the connections."""
        self._web_api.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _for_each(self, request: Callable[[LookupBatch, Any], None], batch: LookupBatch, parts: Iterable[Any]) -> None:
        with ThreadPoolExecutor(self._workers, thread_name_prefix="spotify") as pool:
            for _ in pool.map(partial(request, batch), parts):
                pass

    def _request_group(self, batch: LookupBatch, ids: list[str]) -> None:
        if self._needs_single_requests:
            batch.single_ids.extend(ids)
            return
        response = self._web_api.get(batch, f"tracks?ids={','.join(ids)}", allow_foreign_rejection=True)
        if response is None:
            return
        if response.is_client_error:
            # 400: one invalid id fails all fifty. Otherwise this client may not ask for several, or the form was removed.
            batch.single_ids.extend(ids)
            permanent = {HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.GONE}
            self._needs_single_requests |= response.status_code in permanent and is_own_error(response)
            return
        try:
            values = read_track_list(response, len(ids))
        except UnexpectedResponseError as error:
            batch.record_failure(str(error))
            return
        for track_id, value in zip(ids, values, strict=True):
            if value is None:
                batch.unknown.add(track_id)
            else:
                _record_track(batch, track_id, value, others=ids)

    def _request_single(self, batch: LookupBatch, track_id: str) -> None:
        response = self._web_api.get(batch, f"tracks/{track_id}")
        if response is None:
            return
        if response.status_code == HTTPStatus.NOT_FOUND or (
            response.status_code == HTTPStatus.BAD_REQUEST and _ABOUT_THE_ID.search(describe_message(response))
        ):
            batch.unknown.add(track_id)
            return
        if response.status_code == HTTPStatus.FORBIDDEN:
            batch.record_rejection(f"Spotify refuses the track (HTTP 403{describe_message(response)})")
            return
        try:
            value = read_json(response)
        except UnexpectedResponseError as error:
            batch.record_failure(str(error))
        else:
            _record_track(batch, track_id, value, others=())


def _record_track(batch: LookupBatch, track_id: str, value: object, *, others: Sequence[str]) -> None:
    try:
        batch.found[track_id] = read_requested_track(value, track_id, others=others)
    except UnexpectedResponseError as error:
        batch.record_unreadable_track(str(error))
