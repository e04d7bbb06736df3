"""The check of the HTTP API for `doctor`: whether it listens and is ready."""

from collections.abc import Iterator
from pathlib import Path

import httpx

from measurement_pipeline.cli.checks import CheckResult, fail, ok, warn
from measurement_pipeline.local import instance_lock
from measurement_pipeline.settings import Settings

NAME = "HTTP API"

_LONGEST_SECONDS = 8.0
# An address that means "listen on every interface", and the address to call then.
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104 - nothing is bound here


def check_api(settings: Settings, home: Path) -> Iterator[CheckResult]:
    """Call `GET /readyz` of the `dev` that runs on `home`, or else of the address in the settings."""
    url, is_run_by_dev = instance_lock.api_url(home), True
    if url is None:
        if settings.api_key_secret is None:
            yield ok(NAME, "not in use: API_KEY_SECRET is not set")
            return
        host = _EVERYWHERE.get(settings.api_host, settings.api_host)
        url, is_run_by_dev = f"http://{host}:{settings.api_port}", False
    try:
        status = httpx.get(f"{url}/readyz", timeout=_LONGEST_SECONDS, trust_env=False).status_code
    except httpx.HTTPError as error:
        problem = f"no response from {url} ({error})"
        if is_run_by_dev and instance_lock.is_starting(home, "dev"):
            yield warn(NAME, f"{problem}: `dev` is still starting")
        elif is_run_by_dev:
            yield fail(NAME, f"{problem}: `dev` restarts it; see its log for the reason it ended")
        else:
            yield warn(NAME, f"{problem}: start `measurement-pipeline api`, unless it runs on another machine")
        return
    if status == httpx.codes.OK:
        yield ok(NAME, f"ready at {url}")
    else:
        yield fail(
            NAME,
            f"HTTP {status} from {url}/readyz: it cannot reach the database, or another program listens there",
            cause="database",
        )
