"""Settings → the objects that do the work: what `definitions` and the CLI both start from.

Composition only: which settings exist is `settings`, what the objects do is theirs.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING
from uuid import UUID
from weakref import finalize

from measurement_pipeline.alerts.webhook import Webhook
from measurement_pipeline.apify.client import ApifyActor
from measurement_pipeline.backfill.run import Means
from measurement_pipeline.backfill.terms import Terms
from measurement_pipeline.capture.terms import Captures
from measurement_pipeline.capture.terms import Means as CaptureMeans
from measurement_pipeline.capture.terms import Terms as CaptureTerms
from measurement_pipeline.defs.resources import Pipeline
from measurement_pipeline.domain.payment import Decision, Verdict
from measurement_pipeline.postgres import migrate
from measurement_pipeline.postgres.backfill_queue import Rules
from measurement_pipeline.postgres.database import DatabaseUnavailable
from measurement_pipeline.postgres.payment_decisions import PaymentDecisions
from measurement_pipeline.settings import Settings, SettingsError
from measurement_pipeline.songstats.client import SongstatsClient
from measurement_pipeline.spotify.client import SpotifyClient

if TYPE_CHECKING:
    from measurement_pipeline.payments.gate import StripeGate


def pipeline(environment: Mapping[str, str]) -> Pipeline:
    """The pipeline that `environment` describes.

    Raises `SettingsError` where it describes none, and `WrongDeploymentError` or `SchemaOutOfDateError` where the database is
    not its own. A database that is away is no reason to refuse to load: it is asked at the first tick or op instead.
    """
    settings = Settings.read(environment)
    found = from_settings(settings)

    @cache
    def require_own_database() -> None:
        migrate.require(found.terms.database_url, kind=settings.kind)

    with suppress(DatabaseUnavailable):
        require_own_database()
    return replace(found, require_own_database=require_own_database)


def from_settings(settings: Settings) -> Pipeline:
    """The pipeline of `settings`, without asking the database anything."""
    if settings.database_url is None:
        raise SettingsError(
            "DATABASE_URL is not set: Dagster started by itself needs it, and DAGSTER_POSTGRES_URL. `measurement-pipeline dev` "
            "starts an embedded server and sets both."
        )
    _require_keys(settings)
    decide = _decider(settings, settings.database_url)

    def check_payment(account: UUID) -> Verdict:
        return decide(account).verdict

    return Pipeline(
        terms=terms(settings, settings.database_url),
        means=Means(new_client=lambda: songstats_client(settings), check_payment=check_payment),
        decide=decide,
        captures=captures(settings, settings.database_url),
        silence_alarm_hours=settings.silence_alarm_hours,
        post_alert=_post_alert(settings),
    )


def terms(settings: Settings, database_url: str) -> Terms:
    """On what terms hits are spent."""
    return Terms(
        database_url=database_url,
        rules=Rules(
            claim_timeout_seconds=settings.claim_timeout,
            max_attempts=settings.max_attempts,
            operators_account=settings.backfill_account_id,
        ),
        hits_allowed=settings.hits_allowed,
        requests_per_second=settings.songstats_requests_per_second,
        concurrency=settings.songstats_concurrency,
        eur_per_hit=settings.songstats_eur_per_hit,
        beat_seconds=min(10.0, settings.claim_timeout / 4),
    )


def captures(settings: Settings, database_url: str) -> Captures | None:
    """On what terms captures are made, and by what means; None where there is no token to make any with."""
    token = settings.apify_token
    if token is None:
        return None

    def new_actor() -> ApifyActor:
        return ApifyActor(
            token.get_secret_value(), base_url=settings.apify_base_url, timeout_seconds=on_terms.start_seconds
        )

    on_terms = CaptureTerms(
        database_url=database_url,
        cap_usd=settings.snapshot_monthly_cap_usd,
        claim_timeout_seconds=settings.claim_timeout,
        max_attempts=settings.max_attempts,
        beat_seconds=min(10.0, settings.claim_timeout / 4),
    )
    return Captures(on_terms, CaptureMeans(new_actor, _new_spotify(settings)))


def _new_spotify(settings: Settings) -> Callable[[], SpotifyClient] | None:
    client_id, secret = settings.spotify_client_id, settings.spotify_client_secret
    if client_id is None or secret is None:
        return None

    def new_spotify() -> SpotifyClient:
        return SpotifyClient(
            client_id,
            secret.get_secret_value(),
            api_base=settings.spotify_api_base,
            accounts_base=settings.spotify_accounts_base,
        )

    return new_spotify


def _post_alert(settings: Settings) -> Callable[[str], None] | None:
    url = settings.alert_webhook_url
    return None if url is None else Webhook(url.get_secret_value()).post


def _require_keys(settings: Settings) -> None:
    kind = settings.kind
    missing = [
        name
        for name, key in (
            ("SONGSTATS_API_KEY", settings.songstats_api_key),
            ("STRIPE_SECRET_KEY", settings.stripe_secret_key),
        )
        if key is None
    ]
    if missing:
        raise SettingsError(
            f"{' and '.join(missing)} not set, for a {kind} deployment: expected the vendors' keys, or neither key and "
            "`measurement-pipeline dev`, which brings doubles of the vendors"
        )


def songstats_client(settings: Settings) -> SongstatsClient:
    """A client of Songstats, or of its double. Raises `SettingsError` where there is no key."""
    if settings.songstats_api_key is None:
        raise SettingsError("SONGSTATS_API_KEY is not set")
    return SongstatsClient(
        api_key=settings.songstats_api_key.get_secret_value(),
        base_url=settings.songstats_base_url,
        sources=settings.songstats_sources.split(","),
        timeout_seconds=settings.songstats_timeout_seconds,
        artist_id=settings.songstats_artist_id,
        concurrency=settings.songstats_concurrency,
    )


def _decider(settings: Settings, database_url: str) -> Callable[[UUID], Decision]:
    decisions = PaymentDecisions(database_url)

    @cache
    def gate() -> "StripeGate":
        # Imported when Stripe has to be asked: most runs are served by a decision on file, and the import costs 0.2 s of each.
        from measurement_pipeline.payments.gate import StripeGate

        if settings.stripe_secret_key is None:
            raise SettingsError("STRIPE_SECRET_KEY is not set")
        made = StripeGate(
            secret_key=settings.stripe_secret_key.get_secret_value(),
            api_base=settings.stripe_api_base,
            success_url=settings.checkout_success_url,
            free_tier_price_id=settings.stripe_free_tier_price_id,
            trial_days=settings.stripe_trial_days,
        )
        # Its connections stay open from one question to the next, and end with the pipeline that asks them.
        finalize(decide, made.close)
        return made

    def decide(account: UUID) -> Decision:
        remembered = decisions.fresh(account)
        if remembered is not None:
            return remembered
        from measurement_pipeline.payments.gate import check_payment_method

        return check_payment_method(account, gate=gate(), decisions=decisions, want_checkout=True)

    return decide
