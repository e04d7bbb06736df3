"""Create the objects of a deployment from its settings. The Dagster definitions, the HTTP API and the CLI all start here."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING
from uuid import UUID
from weakref import finalize

from measurement_pipeline.api.config import ApiConfig, JwtConfig
from measurement_pipeline.backfill.config import BackfillConfig
from measurement_pipeline.backfill.run import BackfillDependencies
from measurement_pipeline.capture.config import CaptureConfig, CaptureDependencies, CaptureServices
from measurement_pipeline.domain.backfill_queue import QueueRules
from measurement_pipeline.domain.capture import CaptureLimits
from measurement_pipeline.domain.payment import Decision, PaymentVerdict
from measurement_pipeline.postgres import migrate
from measurement_pipeline.postgres.database import Connection, DatabaseUnavailable, connect
from measurement_pipeline.postgres.payment_decisions import PaymentDecisions
from measurement_pipeline.settings import Kind, Settings, SettingsError
from measurement_pipeline.vendors.apify.client import ApifyClient
from measurement_pipeline.vendors.callback import CallbackSender
from measurement_pipeline.vendors.songstats.client import SongstatsClient
from measurement_pipeline.vendors.spotify.client import SpotifyClient
from measurement_pipeline.vendors.webhook import Webhook

if TYPE_CHECKING:
    from measurement_pipeline.vendors.stripe.payment_gate import StripeGate

# Public: every figure of a sandbox is invented. A live deployment refuses it.
SANDBOX_KEY_SECRET = "the secret of every sandbox, which is none"  # noqa: S105


@dataclass(frozen=True, slots=True)
class MeasurementDatabase:
    """The measurement database. `require_own` raises if it belongs to another deployment or has another schema version."""

    url: str = field(repr=False)
    require_own: Callable[[], None] = field(repr=False)

    def verified_url(self) -> str:
        """The address, after a check that the database belongs to this deployment.

        A process must never write to another deployment's tables. Ops, sensors and checks therefore call this, `connect` or
        `require_own` before they use an address, also the one in `BackfillConfig`. One check is enough for each process.
        Raises `WrongDeploymentError`, `SchemaOutOfDateError` or `DatabaseUnavailable`.
        """
        self.require_own()
        return self.url

    def connect(self) -> Connection:
        """Open a connection to the verified database. Raises as `verified_url` does."""
        return connect(self.verified_url())


@dataclass(frozen=True, slots=True)
class Songstats:
    """Creates clients of Songstats."""

    new_client: Callable[[], SongstatsClient] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Stripe:
    """The payment gate. `decide` also creates a Checkout session for an account without a card."""

    decide: Callable[[UUID], Decision] = field(repr=False)

    def check_payment(self, account: UUID) -> PaymentVerdict:
        """Whether `account` has a card that can be charged."""
        return self.decide(account).verdict


@dataclass(frozen=True, slots=True)
class Alerts:
    """`post` sends one message. None: no webhook is configured."""

    silence_alarm_hours: float
    post: Callable[[str], None] | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Callbacks:
    """Sends callbacks of requests. `require_secret` raises `SettingsError` if a live deployment has no CALLBACK_SECRET."""

    new_sender: Callable[[], CallbackSender] = field(repr=False)
    require_secret: Callable[[], str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Services:
    """Everything that a deployment works with. `captures` None: this deployment makes no captures."""

    database: MeasurementDatabase
    backfill_config: BackfillConfig
    songstats: Songstats
    stripe: Stripe
    captures: CaptureServices | None
    alerts: Alerts
    callbacks: Callbacks

    @property
    def backfill_dependencies(self) -> BackfillDependencies:
        """The vendors that a backfill calls."""
        return backfill_dependencies(self.songstats, self.stripe)

    @property
    def capture_limits(self) -> CaptureLimits | None:
        """Price and limits of captures. None: this deployment makes no captures."""
        return None if self.captures is None else self.captures.config.limits


def backfill_dependencies(songstats: Songstats, stripe: Stripe) -> BackfillDependencies:
    """The vendors that a backfill calls."""
    return BackfillDependencies(new_client=songstats.new_client, check_payment=stripe.check_payment)


def load_services(environment: Mapping[str, str]) -> Services:
    """Create the services that `environment` describes, and check that the database belongs to this deployment.

    Raises `SettingsError`, `WrongDeploymentError` or `SchemaOutOfDateError`. A database that cannot be reached does not prevent
    loading: the first tick or op checks it instead.
    """
    services = create_services(Settings.read(environment))
    with suppress(DatabaseUnavailable):
        services.database.verified_url()
    return services


def create_services(settings: Settings) -> Services:
    """Create the services of `settings` without connecting to anything. Raises `SettingsError`."""
    missing = describe_missing(settings)
    if missing is not None or settings.database_url is None:
        raise SettingsError(missing)
    kind, database_url = settings.kind, settings.database_url

    @cache
    def require_own() -> None:
        migrate.require_current(database_url, kind=kind)

    return Services(
        database=MeasurementDatabase(database_url, require_own),
        backfill_config=backfill_config(settings, database_url),
        songstats=Songstats(lambda: songstats_client(settings)),
        stripe=Stripe(_payment_decider(settings, database_url)),
        captures=capture_services(settings, database_url),
        alerts=Alerts(settings.silence_alarm_hours, _post_alert(settings)),
        callbacks=Callbacks(
            new_sender=lambda: CallbackSender(allow_loopback=settings.callback_allow_loopback),
            require_secret=lambda: callback_secret(settings, kind),
        ),
    )


def key_secret(settings: Settings, kind: Kind) -> str:
    """The secret that API keys are hashed with. A sandbox has a default one. Raises `SettingsError`."""
    if settings.api_key_secret is not None:
        return settings.api_key_secret.get_secret_value()
    if kind == "sandbox":
        return SANDBOX_KEY_SECRET
    raise SettingsError("API_KEY_SECRET is not set: a live deployment needs one for its API, 32 characters or more")


def callback_secret(settings: Settings, kind: Kind) -> str:
    """The secret that callbacks are signed with, by way of each account's own. Raises `SettingsError`."""
    if settings.callback_secret is not None:
        return settings.callback_secret.get_secret_value()
    if kind == "sandbox":
        return SANDBOX_KEY_SECRET
    raise SettingsError(
        "CALLBACK_SECRET is not set: a live deployment needs one to send callbacks, 32 characters or more"
    )


def api_config(settings: Settings) -> ApiConfig:
    """The configuration of the HTTP API. Raises `SettingsError`."""
    services = create_services(settings)
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
        database_url=services.database.url,
        decide=services.stripe.decide,
        key_secret=key_secret(settings, settings.kind),
        capture_limits=services.capture_limits,
        hits_allowed=settings.hits_allowed,
        eur_per_hit=settings.songstats_eur_per_hit,
        requests_per_second=settings.songstats_requests_per_second,
        bearer=bearer,
        cors_origins=() if settings.api_cors_origins is None else settings.api_cors_origins.split(","),
        requests_per_minute=settings.api_requests_per_minute,
    )


def backfill_config(settings: Settings, database_url: str) -> BackfillConfig:
    """The limits within which the backfill spends hits."""
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


def capture_limits(settings: Settings) -> CaptureLimits:
    """Price and limits of captures."""
    return CaptureLimits(
        cap_usd=settings.snapshot_monthly_cap_usd,
        usd_per_album=settings.apify_usd_per_album,
        deployment_cap_usd=settings.snapshot_deployment_cap_usd,
    )


def capture_services(settings: Settings, database_url: str) -> CaptureServices | None:
    """Configuration and vendors of captures. None: APIFY_TOKEN is not set, and the deployment makes no captures."""
    token = settings.apify_token
    if token is None:
        return None

    def new_actor() -> ApifyClient:
        return ApifyClient(
            token.get_secret_value(),
            base_url=settings.apify_base_url,
            timeout_seconds=config.start_timeout_seconds,
            max_usd_per_album=settings.apify_usd_per_album,
        )

    config = CaptureConfig(
        database_url=database_url,
        limits=capture_limits(settings),
        claim_timeout_seconds=settings.claim_timeout,
        max_attempts=settings.max_attempts,
        heartbeat_seconds=min(10.0, settings.claim_timeout / 4),
    )
    return CaptureServices(config, CaptureDependencies(new_actor, _new_spotify(settings)))


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


def describe_missing(settings: Settings) -> str | None:
    """Name the missing settings that every deployment needs, and what to do. None: all are set."""
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
    """A client of Songstats, or of its double. Raises `SettingsError` if there is no key."""
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


def _payment_decider(settings: Settings, database_url: str) -> Callable[[UUID], Decision]:
    decisions = PaymentDecisions(database_url)

    @cache
    def gate() -> "StripeGate":
        # Imported on the first call to Stripe: most runs use a stored decision, and the import costs 0.2 s.
        from measurement_pipeline.vendors.stripe.payment_gate import StripeGate

        if settings.stripe_secret_key is None:
            raise SettingsError("STRIPE_SECRET_KEY is not set")
        stripe_gate = StripeGate(
            secret_key=settings.stripe_secret_key.get_secret_value(),
            api_base=settings.stripe_api_base,
            success_url=settings.checkout_success_url,
            free_tier_price_id=settings.stripe_free_tier_price_id,
            trial_days=settings.stripe_trial_days,
        )
        # The gate keeps its connections open between calls. They are closed when `decide` is collected.
        finalize(decide, stripe_gate.close)
        return stripe_gate

    def decide(account: UUID) -> Decision:
        state = decisions.load(account)
        if state.fresh_decision is not None:
            return state.fresh_decision
        from measurement_pipeline.vendors.stripe.payment_gate import check_payment_method

        return check_payment_method(account, gate=gate(), decisions=decisions, want_checkout=True, state=state)

    return decide
