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

from measurement_pipeline.api.config import ApiConfig, JwtConfig
from measurement_pipeline.backfill.config import BackfillConfig
from measurement_pipeline.backfill.run import BackfillDependencies
from measurement_pipeline.capture.config import CaptureConfig as CaptureTerms
from measurement_pipeline.capture.config import CaptureDependencies as CaptureMeans
from measurement_pipeline.capture.config import CaptureServices
from measurement_pipeline.defs.pipeline import Pipeline
from measurement_pipeline.domain.backfill_queue import QueueRules
from measurement_pipeline.domain.payment import Decision, PaymentVerdict
from measurement_pipeline.postgres import migrate
from measurement_pipeline.postgres.database import DatabaseUnavailable
from measurement_pipeline.postgres.payment_decisions import PaymentDecisions
from measurement_pipeline.settings import Kind, Settings, SettingsError
from measurement_pipeline.vendors.apify.client import ApifyClient
from measurement_pipeline.vendors.songstats.client import SongstatsClient
from measurement_pipeline.vendors.spotify.client import SpotifyClient
from measurement_pipeline.vendors.webhook import Webhook

if TYPE_CHECKING:
    from measurement_pipeline.vendors.stripe.payment_gate import StripeGate

# Everybody knows it, as every figure of a sandbox is invented. No live deployment takes it.
SANDBOX_KEY_SECRET = "the secret of every sandbox, which is none"  # noqa: S105


def pipeline_at_launch(environment: Mapping[str, str]) -> Callable[[], Pipeline]:
    """The pipeline that `environment` describes, for Dagster, which loads definitions where nothing is set too.

    What is returned raises `NotConfiguredError` for a missing setting: a run or a tick calls it when it starts. Raises what
    `pipeline` raises where nothing is missing, so that a wrong setting is refused at load.
    """
    missing = _missing(Settings.read(environment))
    if missing is None:
        found = pipeline(environment)
        return lambda: found
    why = missing

    def refuse() -> Pipeline:
        # Imported here: Dagster takes a second to load, which the HTTP API and most commands never need.
        from measurement_pipeline.defs.resources import NotConfiguredError

        raise NotConfiguredError(why)

    return refuse


def pipeline(environment: Mapping[str, str]) -> Pipeline:
    """The pipeline that `environment` describes.

    Raises `SettingsError` where it describes none, and `WrongDeploymentError` or `SchemaOutOfDateError` where the database is
    not its own. A database that is away is no reason to refuse to load: it is asked at the first tick or op instead.
    """
    settings = Settings.read(environment)
    found = from_settings(settings)

    @cache
    def require_own_database() -> None:
        migrate.require_current(found.terms.database_url, kind=settings.kind)

    with suppress(DatabaseUnavailable):
        require_own_database()
    return replace(found, require_own_database=require_own_database)


def from_settings(settings: Settings) -> Pipeline:
    """The pipeline of `settings`, without asking the database anything."""
    missing = _missing(settings)
    if missing is not None or settings.database_url is None:
        raise SettingsError(missing)
    decide = _decider(settings, settings.database_url)

    def check_payment(account: UUID) -> PaymentVerdict:
        return decide(account).verdict

    return Pipeline(
        terms=backfill_config(settings, settings.database_url),
        means=BackfillDependencies(new_client=lambda: songstats_client(settings), check_payment=check_payment),
        decide=decide,
        captures=capture_services(settings, settings.database_url),
        silence_alarm_hours=settings.silence_alarm_hours,
        post_alert=_post_alert(settings),
    )


def key_secret(settings: Settings, kind: Kind) -> str:
    """Under which digests of API keys are made, in a deployment of that kind. Raises `SettingsError`."""
    if settings.api_key_secret is not None:
        return settings.api_key_secret.get_secret_value()
    if kind == "sandbox":
        return SANDBOX_KEY_SECRET
    raise SettingsError("API_KEY_SECRET is not set: a live deployment needs one for its API, 32 characters or more")


def api_config(settings: Settings) -> ApiConfig:
    """What the HTTP API works with. Raises `SettingsError`."""
    pipeline = from_settings(settings)
    secret = settings.api_jwt_secret
    bearer = None
    if settings.api_jwt_issuer is not None and settings.api_jwt_audience is not None:
        bearer = JwtConfig(
            issuer=settings.api_jwt_issuer,
            audience=settings.api_jwt_audience,
            algorithm=settings.jwt_algorithm,
            jwks_url=settings.api_jwks_url,
            secret=None if secret is None else secret.get_secret_value(),
        )
    return ApiConfig(
        database_url=pipeline.terms.database_url,
        decide=pipeline.decide,
        key_secret=key_secret(settings, settings.kind),
        cap_usd=pipeline.cap_usd,
        hits_allowed=settings.hits_allowed,
        eur_per_hit=settings.songstats_eur_per_hit,
        bearer=bearer,
        cors_origins=() if settings.api_cors_origins is None else settings.api_cors_origins.split(","),
        requests_per_minute=settings.api_requests_per_minute,
    )


def backfill_config(settings: Settings, database_url: str) -> BackfillConfig:
    """On what terms hits are spent."""
    return BackfillConfig(
        database_url=database_url,
        rules=QueueRules(
            claim_timeout_seconds=settings.claim_timeout,
            max_attempts=settings.max_attempts,
            operators_account=settings.backfill_account_id,
        ),
        hits_allowed=settings.hits_allowed,
        requests_per_second=settings.songstats_requests_per_second,
        concurrency=settings.songstats_concurrency,
        eur_per_hit=settings.songstats_eur_per_hit,
        heartbeat_seconds=min(10.0, settings.claim_timeout / 4),
    )


def capture_services(settings: Settings, database_url: str) -> CaptureServices | None:
    """On what terms captures are made, and by what means; None where there is no token to make any with."""
    token = settings.apify_token
    if token is None:
        return None

    def new_actor() -> ApifyClient:
        return ApifyClient(
            token.get_secret_value(), base_url=settings.apify_base_url, timeout_seconds=on_terms.start_timeout_seconds
        )

    on_terms = CaptureTerms(
        database_url=database_url,
        cap_usd=settings.snapshot_monthly_cap_usd,
        claim_timeout_seconds=settings.claim_timeout,
        max_attempts=settings.max_attempts,
        heartbeat_seconds=min(10.0, settings.claim_timeout / 4),
    )
    return CaptureServices(on_terms, CaptureMeans(new_actor, _new_spotify(settings)))


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


def _missing(settings: Settings) -> str | None:
    """Which settings are missing that every deployment needs, and what to do about it; None where none is."""
    missing = [
        name
        for name, value in (
            ("DATABASE_URL", settings.database_url),
            ("SONGSTATS_API_KEY", settings.songstats_api_key),
            ("STRIPE_SECRET_KEY", settings.stripe_secret_key),
        )
        if value is None
    ]
    if not missing:
        return None
    names = f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'}"
    return (
        f"{names} not set, for a {settings.kind} deployment: set them for every process, or unset all three and start "
        "`measurement-pipeline dev`, which brings a database and doubles of the vendors"
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
        from measurement_pipeline.vendors.stripe.payment_gate import StripeGate

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
        from measurement_pipeline.vendors.stripe.payment_gate import check_payment_method

        return check_payment_method(account, gate=gate(), decisions=decisions, want_checkout=True)

    return decide
