"""The resources: one for each vendor, each database and each set of limits, so that the UI shows which op uses which.

Their values are plain objects and no `ConfigurableResource`s, on purpose: Dagster shows the fields of those on the resource page
and keeps them in run records, and several are secrets. Each value is read when a run or a tick starts, so that definitions load
without any setting.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from uuid import UUID

import dagster as dg

from measurement_pipeline.backfill.config import BackfillConfig
from measurement_pipeline.backfill.run import BackfillDependencies
from measurement_pipeline.capture.config import CaptureConfig as CaptureTerms
from measurement_pipeline.capture.config import CaptureDependencies as CaptureMeans
from measurement_pipeline.capture.config import CaptureServices
from measurement_pipeline.defs.pipeline import Pipeline
from measurement_pipeline.domain.payment import Decision, PaymentVerdict
from measurement_pipeline.vendors.songstats.client import SongstatsClient


class NotConfiguredError(dg.DagsterError):
    """A setting is missing. Dagster wraps other errors of a resource; of its own it shows the text as it is."""


@dataclass(frozen=True, slots=True)
class MeasurementDatabase:
    """The measurement database."""

    url: str = field(repr=False)
    require_own: Callable[[], None] = field(repr=False)

    def own_url(self) -> str:
        """The address, once the database is known to belong to this deployment. Raises where it does not, or is away."""
        self.require_own()
        return self.url


@dataclass(frozen=True, slots=True)
class Songstats:
    """Makes clients of Songstats."""

    new_client: Callable[[], SongstatsClient] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Stripe:
    """The payment gate. `decide` also creates a Checkout session for an account without a card."""

    decide: Callable[[UUID], Decision] = field(repr=False)
    check_payment: Callable[[UUID], PaymentVerdict] = field(repr=False)


@dataclass(frozen=True, slots=True)
class CaptureVendor:
    """Makes clients of Apify or of Spotify. None: its keys are not set."""

    new_client: Callable[[], Any] | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Alerts:
    """`post` sends one message. None: there is no webhook."""

    silence_alarm_hours: float
    post: Callable[[str], None] | None = field(repr=False)


def resource_definitions(pipeline: Callable[[], Pipeline]) -> dict[str, dg.ResourceDefinition]:
    """The parts of `pipeline()` by their keys. It is called when a resource is first used, and may raise `NotConfiguredError`."""

    def part(description: str, read: Callable[[Pipeline], Any]) -> dg.ResourceDefinition:
        return dg.ResourceDefinition(lambda _: read(pipeline()), description=description)

    return {
        "measurement_database": part(
            "PostgreSQL database with requests, queue, measurements, ledger and the analysts' views. Setting: DATABASE_URL.",
            lambda found: MeasurementDatabase(found.terms.database_url, found.require_own_database),
        ),
        "dagster_database": dg.ResourceDefinition(
            lambda context: context.instance,
            description=(
                "PostgreSQL database of Dagster itself: runs, events, ticks, partitions. Ops use it through the run's instance. "
                "Setting: DAGSTER_POSTGRES_URL."
            ),
        ),
        "songstats": part(
            "Songstats Enterprise API: sells the history of one recording for one hit. Settings: SONGSTATS_API_KEY and the other "
            "SONGSTATS_… ones.",
            lambda found: Songstats(found.means.new_client),
        ),
        "stripe": part(
            "Stripe API: says whether an account has a card on file, and opens Checkout for one that has none. Settings: "
            "STRIPE_SECRET_KEY, STRIPE_API_BASE and the Checkout ones.",
            lambda found: Stripe(found.decide, found.means.check_payment),
        ),
        "apify": part(
            "Apify API: runs the actor that reads current play counts of whole albums. Settings: APIFY_TOKEN, APIFY_BASE_URL. "
            "Without a token this deployment makes no captures.",
            lambda found: CaptureVendor(None if found.captures is None else found.captures.dependencies.new_actor),
        ),
        "spotify": part(
            "Spotify Web API: gives the ISRC of a captured track. Settings: SPOTIFY_CLIENT_ID, SPOTIFY_CLIENT_SECRET, "
            "SPOTIFY_API_BASE, SPOTIFY_ACCOUNTS_BASE. Without a client, unknown tracks stay without an ISRC.",
            lambda found: CaptureVendor(None if found.captures is None else found.captures.dependencies.new_spotify),
        ),
        "alerts": part(
            "Webhook that receives each incident once. Settings: ALERT_WEBHOOK_URL (without it, incidents show in the UI and in "
            "`incidents` only), SILENCE_ALARM_HOURS.",
            lambda found: Alerts(found.silence_alarm_hours, found.post_alert),
        ),
        "backfill_config": part(
            "Limits of the historical backfill: hits, pace, concurrency, attempts, claim timeout, the operators' account.",
            lambda found: found.terms,
        ),
        "capture_config": part(
            "Limits of captures: monthly cap of an account, attempts, timeouts. None where this deployment makes no captures.",
            lambda found: None if found.captures is None else found.captures.config,
        ),
    }


def own_database(resources: Any) -> str:
    """The measurement database's address, once it is known to belong to this deployment. Needs `measurement_database`."""
    database: MeasurementDatabase = resources.measurement_database
    return database.own_url()


def backfill_config(resources: Any) -> BackfillConfig:
    """The limits of the backfill. Needs `backfill_config`."""
    config: BackfillConfig = resources.backfill_config
    return config


def capture_config(resources: Any) -> CaptureTerms | None:
    """The limits of captures; None where this deployment makes none. Needs `capture_config`."""
    config: CaptureTerms | None = resources.capture_config
    return config


def songstats(resources: Any) -> Songstats:
    """Makes clients of Songstats. Needs `songstats`."""
    vendor: Songstats = resources.songstats
    return vendor


def stripe(resources: Any) -> Stripe:
    """The payment gate. Needs `stripe`."""
    vendor: Stripe = resources.stripe
    return vendor


def alerts(resources: Any) -> Alerts:
    """The webhook and the hours of silence. Needs `alerts`."""
    found: Alerts = resources.alerts
    return found


def backfill_means(resources: Any) -> BackfillDependencies:
    """What a backfill works with. Needs `songstats` and `stripe`."""
    return BackfillDependencies(songstats(resources).new_client, stripe(resources).check_payment)


def captures(resources: Any) -> CaptureServices | None:
    """What captures are made with; None where this deployment makes none. Needs `capture_config`, `apify` and `spotify`."""
    config = capture_config(resources)
    if config is None:
        return None
    return CaptureServices(config, CaptureMeans(resources.apify.new_client, resources.spotify.new_client))


def cap_usd(resources: Any) -> Decimal | None:
    """What captures may cost an account in a month; None where this deployment makes none. Needs `capture_config`."""
    config = capture_config(resources)
    return None if config is None else config.cap_usd
