"""The checks of vendor credentials for `doctor`. They spend no hit, change nothing, and show no key."""

from collections.abc import Iterator

from measurement_pipeline import services
from measurement_pipeline.backfill import vendor_status
from measurement_pipeline.cli.checks import CheckResult, fail, ok, warn
from measurement_pipeline.settings import Kind, Settings

_LONGEST_SECONDS = 8.0


def check_songstats_key(settings: Settings) -> Iterator[CheckResult]:
    """Call `GET /status`, which is free."""
    if settings.songstats_api_key is None:
        yield fail("Songstats key", "SONGSTATS_API_KEY is not set: set it")
        return
    found = vendor_status.fetch_vendor_status(lambda: services.songstats_client(settings), seconds=_LONGEST_SECONDS)
    if found.key_works:
        counted = "unknown" if found.month.requests is None else f"{found.month.requests:,}"
        yield ok("Songstats key", f"accepted (GET /status, no hit); requests this month by Songstats: {counted}")
    elif found.key_works is False:
        yield fail("Songstats key", f"REFUSED ({found.month.detail}): correct SONGSTATS_API_KEY")
    else:
        yield warn(
            "Songstats key",
            f"unknown: {settings.songstats_base_url} gave no usable response ({found.month.detail}): try again, or check "
            "SONGSTATS_BASE_URL and the network",
        )


def check_stripe_key(settings: Settings, kind: Kind) -> Iterator[CheckResult]:
    """List one customer."""
    if settings.stripe_secret_key is None:
        yield fail("Stripe key", "STRIPE_SECRET_KEY is not set: set it")
        return
    # Imported late: it takes 0.2 s.
    from measurement_pipeline.vendors.stripe.api_key import check_secret_key, is_test_mode_key

    secret = settings.stripe_secret_key.get_secret_value()
    found = check_secret_key(secret_key=secret, api_base=settings.stripe_api_base, timeout_seconds=_LONGEST_SECONDS)
    if found.is_accepted is False:
        yield fail("Stripe key", f"REFUSED: {found.message}")
    elif found.is_accepted is None:
        yield warn(
            "Stripe key", f"unknown: {found.message} Until Stripe responds, payments are neither allowed nor denied"
        )
    elif kind == "live" and is_test_mode_key(secret):
        yield warn("Stripe key", "accepted, but it is a test-mode key: test cards pay for real hits. Set a live key")
    else:
        yield ok("Stripe key", "accepted (one customer listed)")


def check_apify_token(settings: Settings) -> Iterator[CheckResult]:
    """List the actor's runs."""
    if settings.apify_token is None:
        yield ok("Apify token", "APIFY_TOKEN is not set: current counts are not captured")
        return
    # Imported late: the library takes 0.5 s.
    from measurement_pipeline.vendors.apify import check

    token = settings.apify_token.get_secret_value()
    found = check.check_token(token, base_url=settings.apify_base_url, timeout_seconds=_LONGEST_SECONDS)
    if found.is_accepted is False:
        yield fail("Apify token", f"REFUSED: {found.message}; captures wait: correct APIFY_TOKEN")
    elif found.is_accepted is None:
        yield warn("Apify token", f"unknown: {found.message}; captures wait until Apify responds")
    else:
        yield ok("Apify token", "accepted (the actor's runs listed)")


def check_spotify_client(settings: Settings) -> Iterator[CheckResult]:
    """Request an access token."""
    client_id, secret = settings.spotify_client_id, settings.spotify_client_secret
    if client_id is None or secret is None:
        message = "SPOTIFY_CLIENT_ID or SPOTIFY_CLIENT_SECRET is not set: new tracks stay unmapped"
        yield ok("Spotify client", message) if settings.apify_token is None else warn("Spotify client", message)
        return
    from measurement_pipeline.vendors.spotify import check

    found = check.check_client(
        client_id,
        secret.get_secret_value(),
        api_base=settings.spotify_api_base,
        accounts_base=settings.spotify_accounts_base,
        timeout_seconds=_LONGEST_SECONDS,
    )
    if found.is_accepted is False:
        yield fail("Spotify client", f"REFUSED: {found.message}; new tracks stay unmapped")
    elif found.is_accepted is None:
        yield warn("Spotify client", f"unknown: {found.message}; new tracks stay unmapped until Spotify responds")
    else:
        yield ok("Spotify client", "accepted (token issued)")


def check_webhook(settings: Settings) -> CheckResult:
    """Check that alerts have a destination. Its URL is a secret, so it is neither shown nor called."""
    if settings.alert_webhook_url is None:
        where = "only here, in Dagster and with `measurement-pipeline incidents`"
        return warn("webhook", f"ALERT_WEBHOOK_URL is not set: incidents are shown {where}")
    return ok("webhook", "set (its URL is a secret; it is not tested here)")
