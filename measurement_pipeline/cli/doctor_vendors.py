"""What `doctor` asks of the vendors: whether they take our keys. No hit is spent, nothing is changed, no key is shown."""

from collections.abc import Iterator

from measurement_pipeline import services
from measurement_pipeline.backfill import vendor_status
from measurement_pipeline.cli.checks import CheckResult, fail, ok, warn
from measurement_pipeline.settings import Kind, Settings

_LONGEST_SECONDS = 8.0


def check_songstats_key(settings: Settings) -> Iterator[CheckResult]:
    """One `GET /status`, which is free."""
    if settings.songstats_api_key is None:
        yield fail("Songstats key", "SONGSTATS_API_KEY is not set")
        return
    found = vendor_status.fetch_vendor_status(lambda: services.songstats_client(settings), seconds=_LONGEST_SECONDS)
    if found.key_works:
        counted = "unknown" if found.month.requests is None else f"{found.month.requests:,}"
        yield ok("Songstats key", f"taken (GET /status, no hit); requests that it counts this month: {counted}")
    elif found.key_works is False:
        yield fail("Songstats key", f"REFUSED ({found.month.detail}): put SONGSTATS_API_KEY right")
    else:
        yield warn(
            "Songstats key",
            f"unknown, since {settings.songstats_base_url} gave no usable answer ({found.month.detail}): try again, or check "
            "SONGSTATS_BASE_URL and the network",
        )


def check_stripe_key(settings: Settings, kind: Kind) -> Iterator[CheckResult]:
    """One list of one customer."""
    if settings.stripe_secret_key is None:
        yield fail("Stripe key", "STRIPE_SECRET_KEY is not set")
        return
    # Imported when it is asked: a fifth of a second.
    from measurement_pipeline.vendors.stripe import api_key as stripe_key

    secret = settings.stripe_secret_key.get_secret_value()
    found = stripe_key.check_key(secret_key=secret, api_base=settings.stripe_api_base, timeout_seconds=_LONGEST_SECONDS)
    if found.works is False:
        yield fail("Stripe key", f"REFUSED: {found.words}")
    elif found.works is None:
        yield warn("Stripe key", f"unknown: {found.words} Until it answers nobody is let spend, and nobody is refused")
    elif kind == "live" and stripe_key.is_test_mode_key(secret):
        yield warn("Stripe key", "taken, but it is one of test mode: its cards are invented, and the hits are real")
    else:
        yield ok("Stripe key", "taken (a read of one customer)")


def check_apify_token(settings: Settings) -> Iterator[CheckResult]:
    """One look at the actor's runs."""
    if settings.apify_token is None:
        yield ok("Apify token", "APIFY_TOKEN is not set: captures are not made")
        return
    # Imported when it is asked: the library takes half a second.
    from measurement_pipeline.vendors.apify import check

    token = settings.apify_token.get_secret_value()
    found = check.check_token(token, base_url=settings.apify_base_url, timeout_seconds=_LONGEST_SECONDS)
    if found.works is False:
        yield fail("Apify token", f"REFUSED: {found.words}; captures wait until it is put right")
    elif found.works is None:
        yield warn("Apify token", f"unknown: {found.words}; captures wait until it answers")
    else:
        yield ok("Apify token", "taken (a look at the actor's runs)")


def check_spotify_client(settings: Settings) -> Iterator[CheckResult]:
    """One token."""
    client_id, secret = settings.spotify_client_id, settings.spotify_client_secret
    if client_id is None or secret is None:
        words = "SPOTIFY_CLIENT_ID or SPOTIFY_CLIENT_SECRET is not set: tracks that are new stay unmapped"
        yield ok("Spotify client", words) if settings.apify_token is None else warn("Spotify client", words)
        return
    from measurement_pipeline.vendors.spotify import check

    found = check.check_client(
        client_id,
        secret.get_secret_value(),
        api_base=settings.spotify_api_base,
        accounts_base=settings.spotify_accounts_base,
        timeout_seconds=_LONGEST_SECONDS,
    )
    if found.works is False:
        yield fail("Spotify client", f"REFUSED: {found.words}; tracks that are new stay unmapped")
    elif found.works is None:
        yield warn("Spotify client", f"unknown: {found.words}; tracks that are new stay unmapped until it answers")
    else:
        yield ok("Spotify client", "taken (a token)")


def check_webhook(settings: Settings) -> CheckResult:
    """Whether incidents are told anywhere. The address itself is a secret."""
    if settings.alert_webhook_url is None:
        where = "shown here, in Dagster and by `measurement-pipeline incidents`, and told nowhere"
        return warn("webhook", f"ALERT_WEBHOOK_URL is not set: incidents are {where}")
    return ok("webhook", "set (its address is a secret, and it is not tried here)")
