"""Looking tracks up at Spotify: what was found, what it does not know, and what has to wait.

Fifty in a request, or one by one where the client may not ask for fifty. How a request is made is `web_api`.
"""

import re
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self

import httpx

from measurement_pipeline.domain.capture import SpotifyTrack
from measurement_pipeline.vendors.http import VendorHttpClient
from measurement_pipeline.vendors.spotify.lookup_batch import LookupBatch
from measurement_pipeline.vendors.spotify.responses import OddAnswerError, is_own_error, read_json, read_list, said
from measurement_pipeline.vendors.spotify.tracks import read_requested_track
from measurement_pipeline.vendors.spotify.web_api import CredentialsRefusedError, WebApi

__all__ = ["CredentialsRefusedError", "LookupResult", "SpotifyClient"]

_BATCH = 50
_TRACK_ID = re.compile(r"[0-9A-Za-z]{22}")
# A 400 says that there can be no such track, or that the request is at fault: "Invalid base62 id", and anything else.
_OF_THE_ID = re.compile(r"\bid\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class LookupResult:
    """What became of the tracks asked for: each is in exactly one of `found`, `unknown` and `deferred`.

    `found` has them by the id that was asked, which need not be the id of the track that answered. `unknown`: Spotify says
    there is none. `deferred`: not asked, or not answered; `why` says why, and `retry_after_seconds` how long Spotify asks to
    wait, where it does.
    """

    found: dict[str, SpotifyTrack]
    unknown: frozenset[str]
    deferred: frozenset[str]
    retry_after_seconds: float | None
    why: str | None


class SpotifyClient:
    """Looks tracks up with a client's own credentials. Sleeps at most `longest_wait_seconds` in one look-up.

    `api_base` and `accounts_base` are scheme and host. Raises ValueError, which never holds the secret, where a setting
    cannot be used.
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
        self._web_api = WebApi(
            client_id,
            client_secret,
            api=VendorHttpClient(api_base, transport=transport),
            accounts=VendorHttpClient(accounts_base, transport=transport),
            timeout_seconds=timeout_seconds,
        )
        self._sleep = sleep
        self._longest_wait = max_wait_seconds
        self._workers = workers
        # Learnt once: apps in development mode get 403 for more than one track at a time, and the batch form may be gone.
        self._one_by_one = False

    def look_up(self, track_ids: Sequence[str]) -> LookupResult:
        """Ask for these tracks. Raises CredentialsRefusedError; whatever else goes wrong defers what is left."""
        asked = tuple(dict.fromkeys(track_ids))
        errand = LookupBatch(self._sleep, self._longest_wait)
        # Spotify refuses a whole batch for one id of another form.
        errand.unknown.update(track for track in asked if not _TRACK_ID.fullmatch(track))
        ids = [track for track in asked if track not in errand.unknown]
        batches = [ids[start : start + _BATCH] for start in range(0, len(ids), _BATCH)]
        self._each(self._ask_for_batch, errand, batches)
        self._each(self._ask_for_one, errand, errand.one_by_one)
        deferred = frozenset(ids) - errand.found.keys() - errand.unknown
        return LookupResult(
            found=errand.found,
            unknown=frozenset(errand.unknown),
            deferred=deferred,
            retry_after_seconds=errand.retry_after if deferred else None,
            why=errand.why if deferred else None,
        )

    def close(self) -> None:
        """Close the connections."""
        self._web_api.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _each(self, ask: Callable[[LookupBatch, Any], None], errand: LookupBatch, parts: Iterable[Any]) -> None:
        with ThreadPoolExecutor(self._workers, thread_name_prefix="spotify") as pool:
            for _ in pool.map(partial(ask, errand), parts):
                pass

    def _ask_for_batch(self, errand: LookupBatch, ids: list[str]) -> None:
        if self._one_by_one:
            errand.one_by_one.extend(ids)
            return
        answer = self._web_api.get(errand, f"tracks?ids={','.join(ids)}", foreign_refusal=True)
        if answer is None:
            return
        if answer.is_client_error:
            # 400: one bad id spoils all fifty. Any other: this client may not ask for several, or that form is gone.
            errand.one_by_one.extend(ids)
            is_for_good = {HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.GONE}
            self._one_by_one |= answer.status_code in is_for_good and is_own_error(answer)
            return
        try:
            values = read_list(answer, len(ids))
        except OddAnswerError as odd:
            errand.failed(str(odd))
            return
        for asked, value in zip(ids, values, strict=True):
            if value is None:
                errand.unknown.add(asked)
            else:
                _learn(errand, asked, value, others=ids)

    def _ask_for_one(self, errand: LookupBatch, track: str) -> None:
        answer = self._web_api.get(errand, f"tracks/{track}")
        if answer is None:
            return
        if answer.status_code == HTTPStatus.NOT_FOUND or (
            answer.status_code == HTTPStatus.BAD_REQUEST and _OF_THE_ID.search(said(answer))
        ):
            errand.unknown.add(track)
            return
        if answer.status_code == HTTPStatus.FORBIDDEN:
            errand.refused(f"Spotify refuses to answer (HTTP 403{said(answer)})")
            return
        try:
            value = read_json(answer)
        except OddAnswerError as odd:
            errand.failed(str(odd))
        else:
            _learn(errand, track, value, others=())


def _learn(errand: LookupBatch, asked: str, value: object, *, others: Sequence[str]) -> None:
    try:
        errand.found[asked] = read_requested_track(value, asked, others=others)
    except OddAnswerError as odd:
        errand.odd(str(odd))
