"""Looking tracks up at Spotify: what was found, what it does not know, and what has to wait.

Fifty in a request, or one by one where the client may not ask for fifty. How long one look-up may wait is `errand`.
"""

import base64
import json
import re
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self

import httpx

from measurement_pipeline.domain.capture import Track
from measurement_pipeline.outbound import Outbound, in_words, retry_after
from measurement_pipeline.spotify.errand import Errand
from measurement_pipeline.spotify.tracks import OddAnswerError, read_track, stands_for

_BATCH = 50
_TRACK_ID = re.compile(r"[0-9A-Za-z]{22}")
_HEADER_SAFE = re.compile(r"[!-~]+")
_SHORTEST_WAIT_SECONDS = 1.0
_QUICK_RETRIES_SECONDS = (0.5, 1.0)
_UNREADABLE = "an answer of Spotify cannot be read"


class CredentialsRefusedError(Exception):
    """Spotify does not take the client's id and secret. The message holds neither."""


@dataclass(frozen=True, slots=True)
class Lookup:
    """What became of the tracks asked for: each is in exactly one of `found`, `unknown` and `deferred`.

    `found` has them by the id that was asked, which need not be the id of the track that answered. `unknown`: Spotify says
    there is none. `deferred`: not asked, or not answered; `why` says why, and `retry_after_seconds` how long Spotify asks to
    wait, where it does.
    """

    found: dict[str, Track]
    unknown: frozenset[str]
    deferred: frozenset[str]
    retry_after_seconds: float | None
    why: str | None


class SpotifyClient:
    """Looks tracks up with a client's own credentials. Sleeps at most `longest_wait_seconds` in one look-up.

    Raises ValueError, which never holds the secret, where a setting cannot be used.
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
        longest_wait_seconds: float = 30,
        workers: int = 8,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        if not (_HEADER_SAFE.fullmatch(client_id) and _HEADER_SAFE.fullmatch(client_secret)):
            raise ValueError("Spotify's client id or secret is empty or holds characters that no header can carry")
        login = base64.b64encode(f"{client_id}:{client_secret}".encode("ascii")).decode("ascii")
        self._login = {
            "authorization": f"Basic {login}",
            "content-type": "application/x-www-form-urlencoded",
            "accept": "application/json",
        }
        self._api = Outbound(api_base, transport=transport)
        self._accounts = Outbound(accounts_base, transport=transport)
        self._timeout_seconds = timeout_seconds
        self._sleep = sleep
        self._longest_wait = longest_wait_seconds
        self._workers = workers
        self._token: str | None = None
        self._token_lock = threading.Lock()
        # Learnt once: apps in development mode get 403 for more than one track at a time.
        self._one_by_one = False

    def look_up(self, track_ids: Sequence[str]) -> Lookup:
        """Ask for these tracks. Raises CredentialsRefusedError; whatever else goes wrong defers what is left."""
        asked = tuple(dict.fromkeys(track_ids))
        errand = Errand(self._sleep, self._longest_wait)
        # Spotify refuses a whole batch for one id of another form.
        errand.unknown.update(track for track in asked if not _TRACK_ID.fullmatch(track))
        ids = [track for track in asked if track not in errand.unknown]
        if self._one_by_one:
            errand.one_by_one.extend(ids)
        else:
            self._each(
                self._ask_for_batch, errand, (ids[start : start + _BATCH] for start in range(0, len(ids), _BATCH))
            )
        self._each(self._ask_for_one, errand, errand.one_by_one)
        deferred = frozenset(ids) - errand.found.keys() - errand.unknown
        return Lookup(
            found=errand.found,
            unknown=frozenset(errand.unknown),
            deferred=deferred,
            retry_after_seconds=errand.retry_after if deferred else None,
            why=errand.why if deferred else None,
        )

    def close(self) -> None:
        """Close the connections."""
        self._api.close()
        self._accounts.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _each(self, ask: Callable[[Errand, Any], None], errand: Errand, parts: Iterable[Any]) -> None:
        with ThreadPoolExecutor(self._workers, thread_name_prefix="spotify") as pool:
            for _ in pool.map(partial(ask, errand), parts):
                pass

    def _ask_for_batch(self, errand: Errand, ids: list[str]) -> None:
        answer = None if self._one_by_one else self._get(errand, f"tracks?ids={','.join(ids)}")
        if self._one_by_one or (answer is not None and answer.status_code == HTTPStatus.FORBIDDEN):
            self._one_by_one = True
            errand.one_by_one.extend(ids)
        elif answer is not None and answer.status_code == HTTPStatus.BAD_REQUEST:  # one id spoils all fifty
            errand.one_by_one.extend(ids)
        elif answer is not None:
            try:
                found = _json(answer)
                tracks = found.get("tracks") if isinstance(found, dict) else None
                if not isinstance(tracks, list) or len(tracks) != len(ids):
                    raise OddAnswerError(f"expected {len(ids)} tracks")
            except OddAnswerError as odd:
                errand.failed(f"{_UNREADABLE}: {odd}")
                return
            for asked, value in zip(ids, tracks, strict=True):
                if value is None:
                    errand.unknown.add(asked)
                else:
                    _learn(errand, asked, value, others=ids)

    def _ask_for_one(self, errand: Errand, track: str) -> None:
        answer = self._get(errand, f"tracks/{track}")
        if answer is None:
            return
        if answer.status_code in {HTTPStatus.NOT_FOUND, HTTPStatus.BAD_REQUEST}:
            errand.unknown.add(track)
        elif answer.status_code == HTTPStatus.FORBIDDEN:
            errand.give_up(f"Spotify refuses to answer (HTTP 403{_said(answer)})")
        else:
            try:
                value = _json(answer)
            except OddAnswerError as odd:
                errand.failed(f"{_UNREADABLE}: {odd}")
            else:
                _learn(errand, track, value, others=[track])

    def _get(self, errand: Errand, path: str) -> httpx.Response | None:
        """What Spotify answers; None where it has to wait, as `errand` then says."""
        for _ in range(2):
            token = self._current_token(errand)
            if token is None:
                return None
            headers = {"authorization": f"Bearer {token}", "accept": "application/json"}
            url = f"{self._api.base_url}/v1/{path}"
            answer = self._persistently(errand, partial(self._api.ask, "GET", url, headers=headers))
            if answer is None or answer.status_code != HTTPStatus.UNAUTHORIZED:
                return answer
            with self._token_lock:
                if self._token == token:
                    self._token = None
        errand.give_up("Spotify refuses a token that it has only just given")
        return None

    def _current_token(self, errand: Errand) -> str | None:
        with self._token_lock:
            if self._token is None:
                self._token = self._new_token(errand)
            return self._token

    def _new_token(self, errand: Errand) -> str | None:
        url = f"{self._accounts.base_url}/api/token"
        body = b"grant_type=client_credentials"
        answer = self._persistently(errand, partial(self._accounts.ask, "POST", url, headers=self._login, content=body))
        if answer is None:
            return None
        if answer.status_code in {HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED}:
            refused = (
                "Spotify does not take the client's id and secret: check SPOTIFY_CLIENT_ID and SPOTIFY_CLIENT_SECRET "
                f"(HTTP {answer.status_code}{_said(answer)})"
            )
            errand.give_up(refused)  # or each of the other workers would ask for a token as well
            raise CredentialsRefusedError(refused)
        try:
            found = _json(answer)
            token = found.get("access_token") if isinstance(found, dict) else None
            if not isinstance(token, str) or not _HEADER_SAFE.fullmatch(token):
                raise OddAnswerError("expected a token")
        except OddAnswerError as odd:
            errand.give_up(f"{_UNREADABLE}: {odd}")
            return None
        return token

    def _persistently(self, errand: Errand, send: Callable[..., httpx.Response]) -> httpx.Response | None:
        """The first answer that is neither a 429 nor the vendor's own trouble; None where there is none in time."""
        retries = iter(_QUICK_RETRIES_SECONDS)
        while not errand.over:
            turn = errand.turn()
            try:
                answer = send(timeout_seconds=self._timeout_seconds)
            except httpx.HTTPError as error:
                trouble = f"Spotify gave no answer ({in_words(error)})"
            else:
                if answer.status_code == HTTPStatus.TOO_MANY_REQUESTS:
                    why = f"Spotify asks to wait (HTTP 429{_said(answer)})"
                    asked = retry_after(answer.headers)
                    seconds = max(2.0**turn if asked is None else asked, _SHORTEST_WAIT_SECONDS)
                    errand.back_off(turn, seconds, why, retry_after=asked)
                    continue
                if answer.status_code < 500:
                    return answer
                trouble = f"Spotify could not answer (HTTP {answer.status_code})"
            pause = next(retries, None)
            if pause is None:
                errand.failed(trouble)
                return None
            errand.back_off(turn, pause, trouble)
        return None


def _learn(errand: Errand, asked: str, value: object, *, others: Sequence[str]) -> None:
    """Note what one place of an answer says of the track asked for."""
    try:
        track = read_track(value)
        # A track may answer for another that it replaces, but not for one that was asked for beside it.
        if not stands_for(value, asked) and track.track_id in others:
            raise OddAnswerError(f"track {track.track_id} in the place of {asked}")
    except OddAnswerError as odd:
        errand.odd(f"{_UNREADABLE}: {odd}")
        return
    errand.found[asked] = track


def _json(answer: httpx.Response) -> object:
    """The JSON of a 200. Raises OddAnswerError for anything else."""
    if answer.status_code != HTTPStatus.OK:
        raise OddAnswerError(f"HTTP {answer.status_code}{_said(answer)}")
    try:
        return json.loads(answer.content)
    except (ValueError, RecursionError):
        raise OddAnswerError("expected JSON") from None


def _said(answer: httpx.Response) -> str:
    """Spotify's own words about an error, to put behind its status."""
    try:
        found = json.loads(answer.content)
    except (ValueError, RecursionError):
        return ""
    error = found.get("error") if isinstance(found, dict) else None
    words = (
        error.get("message") if isinstance(error, dict) else found.get("error_description", error) if error else None
    )
    return f": {' '.join(words.split())[:200]}" if isinstance(words, str) and words else ""
