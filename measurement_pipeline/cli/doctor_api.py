"""What `doctor` asks of the HTTP API: whether it listens, and can answer."""

from collections.abc import Iterator
from pathlib import Path

import httpx

from measurement_pipeline.cli.checks import CheckResult, fail, ok, warn
from measurement_pipeline.local import instance_lock
from measurement_pipeline.settings import Settings

NAME = "HTTP API"

_LONGEST_SECONDS = 8.0
# So long it may take to start.
_STARTS_SECONDS = 60.0
# What to listen on means everywhere, and where to ask is here.
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104 - nothing is bound here


def check_api(settings: Settings, home: Path) -> Iterator[CheckResult]:
    """One `GET /readyz`, at the `dev` that runs on `home`, else where the settings have it."""
    url, of_dev = instance_lock.api_url(home), True
    if url is None:
        if settings.api_key_secret is None:
            yield ok(NAME, "not set up: API_KEY_SECRET is not set")
            return
        host = _EVERYWHERE.get(settings.api_host, settings.api_host)
        url, of_dev = f"http://{host}:{settings.api_port}", False
    try:
        status = httpx.get(f"{url}/readyz", timeout=_LONGEST_SECONDS, trust_env=False).status_code
    except httpx.HTTPError as error:
        why = f"no answer at {url} ({error})"
        since = instance_lock.seconds_since_start(home, "dev") if of_dev else None
        if since is not None and since < _STARTS_SECONDS:
            yield warn(NAME, f"{why}; `dev` started {since:.0f} s ago")
        elif of_dev:
            yield fail(NAME, f"{why}: `dev` brings it back; its log says why it ends")
        else:
            yield warn(NAME, f"{why}: start `measurement-pipeline api`, unless it runs on another machine")
        return
    if status == httpx.codes.OK:
        yield ok(NAME, f"answers at {url}")
    else:
        yield fail(
            NAME,
            f"HTTP {status} from {url}/readyz: it cannot reach the database, or something else listens there",
            cause="database",
        )
