"""The Dagster resources: one for each vendor, each database and each set of limits, so that the UI shows which op uses which.

Their values are plain objects, not `ConfigurableResource`s: Dagster shows the fields of those on the resource page and stores
them in run records, and several are secrets. Ops, sensors and checks take them as `dg.ResourceParam[...]`. A resource is created
when a run or a tick first uses it, so that definitions load without any setting.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import dagster as dg

from measurement_pipeline import services
from measurement_pipeline.backfill.config import BackfillConfig
from measurement_pipeline.capture.config import CaptureConfig, CaptureDependencies, CaptureServices
from measurement_pipeline.defs.tick_wait import TickWait
from measurement_pipeline.services import Alerts, Callbacks, MeasurementDatabase, Services, Songstats, Stripe
from measurement_pipeline.settings import Settings
from measurement_pipeline.vendors.apify.client import ApifyClient
from measurement_pipeline.vendors.spotify.client import SpotifyClient


class NotConfiguredError(dg.DagsterError):
    """A setting is missing. Dagster wraps other errors of a resource, but shows the text of its own errors as it is."""


@dataclass(frozen=True, slots=True)
class Apify:
    """Creates Apify clients. None: APIFY_TOKEN is not set."""

    new_client: Callable[[], ApifyClient] | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Spotify:
    """Creates clients of Spotify's Web API. None: its credentials are not set, or this deployment makes no captures."""

    new_client: Callable[[], SpotifyClient] | None = field(repr=False)


def capture_services(capture_config: CaptureConfig | None, apify: Apify, spotify: Spotify) -> CaptureServices | None:
    """What a capture works with. None: this deployment makes no captures."""
    if capture_config is None or apify.new_client is None:
        return None
    return CaptureServices(capture_config, CaptureDependencies(apify.new_client, spotify.new_client))


def services_at_launch(environment: Mapping[str, str]) -> Callable[[], Services]:
    """Read `environment` now and return a function for the services, because Dagster loads definitions where nothing is set, too.

    A malformed setting raises at once. If no setting is missing, this connects to the database and raises if that belongs to
    another deployment. If one is missing, the returned function raises `NotConfiguredError`: in the run or tick.
    """
    missing = services.describe_missing(Settings.read(environment))
    if missing is None:
        loaded = services.load_services(environment)
        return lambda: loaded
    reason = missing

    def refuse() -> Services:
        raise NotConfiguredError(reason)

    return refuse


def resource_definitions(
    get_services: Callable[[], Services], *, tick_seconds: float = 0.0
) -> dict[str, dg.ResourceDefinition]:
    """The resources by their keys. `get_services` is called when a resource is first used; it may raise `NotConfiguredError`.

    `tick_seconds`: how long a sensor's tick may wait for work.
    """
    # One for all ticks of this process: a sensor wakes the tick of another.
    shared_tick_wait = TickWait(tick_seconds)

    @dg.resource(
        description="PostgreSQL database with requests, queue, measurements, ledger and analysts' views. Setting: DATABASE_URL."
    )
    def measurement_database(_: dg.InitResourceContext) -> MeasurementDatabase:
        return get_services().database

    @dg.resource(
        description=(
            "PostgreSQL database of Dagster itself: runs, events, ticks, partitions. Ops use it through the run's instance. "
            "Setting: DAGSTER_POSTGRES_URL."
        )
    )
    def dagster_database(context: dg.InitResourceContext) -> dg.DagsterInstance | None:
        return context.instance

    @dg.resource(
        description=(
            "Songstats Enterprise API: sells the history of one recording for one hit. Settings: SONGSTATS_API_KEY and the other "
            "SONGSTATS_… ones."
        )
    )
    def songstats(_: dg.InitResourceContext) -> Songstats:
        return get_services().songstats

    @dg.resource(
        description=(
            "Stripe API: reports whether an account has a card on file, and opens Checkout for an account that has none. "
            "Settings: STRIPE_SECRET_KEY, STRIPE_API_BASE and the Checkout ones."
        )
    )
    def stripe(_: dg.InitResourceContext) -> Stripe:
        return get_services().stripe

    @dg.resource(
        description=(
            "Apify API: runs the actor that reads current play counts of whole albums. Settings: APIFY_TOKEN, APIFY_BASE_URL. "
            "Without a token this deployment makes no captures."
        )
    )
    def apify(_: dg.InitResourceContext) -> Apify:
        captures = get_services().captures
        return Apify(None if captures is None else captures.dependencies.new_actor)

    @dg.resource(
        description=(
            "Spotify Web API: returns the ISRC of a captured track. Settings: SPOTIFY_CLIENT_ID, SPOTIFY_CLIENT_SECRET, "
            "SPOTIFY_API_BASE, SPOTIFY_ACCOUNTS_BASE. Without a client, unknown tracks stay without an ISRC."
        )
    )
    def spotify(_: dg.InitResourceContext) -> Spotify:
        captures = get_services().captures
        return Spotify(None if captures is None else captures.dependencies.new_spotify)

    @dg.resource(
        description=(
            "Webhook that receives each incident once. Settings: ALERT_WEBHOOK_URL (without it, incidents show in the UI and in "
            "`incidents` only), SILENCE_ALARM_HOURS."
        )
    )
    def alerts(_: dg.InitResourceContext) -> Alerts:
        return get_services().alerts

    @dg.resource(
        description=(
            "Callbacks of requests, to the addresses that clients name. Settings: CALLBACK_SECRET, CALLBACK_ALLOW_LOOPBACK."
        )
    )
    def callbacks(_: dg.InitResourceContext) -> Callbacks:
        return get_services().callbacks

    @dg.resource(
        description="Limits of the historical backfill: hits, pace, concurrency, attempts, claim timeout, the operators' account."
    )
    def backfill_config(_: dg.InitResourceContext) -> BackfillConfig:
        return get_services().backfill_config

    @dg.resource(
        description=(
            "Limits of captures: monthly cap of an account, attempts, timeouts. None if this deployment makes no captures."
        )
    )
    def capture_config(_: dg.InitResourceContext) -> CaptureConfig | None:
        captures = get_services().captures
        return None if captures is None else captures.config

    @dg.resource(description="How long a tick of a sensor waits for work, instead of ending at once.")
    def tick_wait(_: dg.InitResourceContext) -> TickWait:
        return shared_tick_wait

    return {
        "measurement_database": measurement_database,
        "dagster_database": dagster_database,
        "songstats": songstats,
        "stripe": stripe,
        "apify": apify,
        "spotify": spotify,
        "alerts": alerts,
        "callbacks": callbacks,
        "backfill_config": backfill_config,
        "capture_config": capture_config,
        "tick_wait": tick_wait,
    }
