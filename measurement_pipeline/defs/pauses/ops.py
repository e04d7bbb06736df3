"""The ops that begin and end an operator's pause."""

from uuid import UUID

import dagster as dg
from pydantic import Field

from measurement_pipeline.defs.steps import begin_step
from measurement_pipeline.defs.stopping import stops_in_one_line
from measurement_pipeline.domain.dates import parse_moment
from measurement_pipeline.domain.purchase_pause import MAX_REASON_LENGTH, PausableVendor, PauseScope
from measurement_pipeline.domain.text import one_line
from measurement_pipeline.postgres import names, purchase_pauses
from measurement_pipeline.postgres.database import Connection
from measurement_pipeline.services import MeasurementDatabase


class ScopeConfig(dg.Config):
    """What is paused or resumed. With neither field: all purchases."""

    account: str | None = Field(default=None, description="UUID of an account: only its purchases.")
    vendor: str | None = Field(default=None, description="songstats or apify: only purchases from this vendor.")


class PauseConfig(ScopeConfig):
    """What is paused, until when and why."""

    reason: str = Field(description="Why. It is shown wherever the pause is, to the account's clients too.")
    until: str | None = Field(
        default=None,
        description="ISO 8601 time at which the pause ends by itself; UTC without a zone. Default: until it is resumed.",
    )


@dg.op(
    description=(
        "Stops the purchases of an account, from a vendor, or all of them, as `measurement-pipeline pause` does. Once it has "
        "succeeded, nothing is bought until the pause ends."
    )
)
@stops_in_one_line
def begin_pause(
    context: dg.OpExecutionContext, config: PauseConfig, measurement_database: dg.ResourceParam[MeasurementDatabase]
) -> None:
    """Begin the pause and show it in the op's metadata."""
    begin_step(context, measurement_database)
    reason = one_line(config.reason, max_length=MAX_REASON_LENGTH)
    if not reason:
        raise dg.Failure("reason: expected a text", allow_retries=False)
    until = None if config.until is None else parse_moment(config.until)
    if config.until is not None and until is None:
        message = f"until: {config.until!r} is no time: expected, for example, 2026-12-24T03:19 (UTC)"
        raise dg.Failure(message, allow_retries=False)
    with measurement_database.connect() as connection:
        scope = _read_scope(connection, config)
        try:
            pause = purchase_pauses.begin(connection, scope, until=until, reason=reason, actor=f"run {context.run_id}")
        except purchase_pauses.PauseEndsInThePastError as error:
            raise dg.Failure(str(error), allow_retries=False) from error
    context.add_output_metadata({"pause": pause.cause, "next step": pause.next_step})


@dg.op(
    description="Ends the pause of an account, of a vendor, or of everything, as `measurement-pipeline resume` does."
)
@stops_in_one_line
def end_pause(
    context: dg.OpExecutionContext, config: ScopeConfig, measurement_database: dg.ResourceParam[MeasurementDatabase]
) -> None:
    """End the pause; fail if there is none."""
    begin_step(context, measurement_database)
    with measurement_database.connect() as connection:
        scope = _read_scope(connection, config)
        ended = purchase_pauses.end(connection, scope, actor=f"run {context.run_id}")
    if ended is None:
        raise dg.Failure(f"{scope}: not paused", allow_retries=False)
    context.add_output_metadata({"resumed": ended.cause})


def _read_scope(connection: Connection, config: ScopeConfig) -> PauseScope:
    if config.account is not None and config.vendor is not None:
        raise dg.Failure("account and vendor: expected one of them, got both", allow_retries=False)
    if config.vendor is not None and config.vendor not in set(PausableVendor):
        raise dg.Failure(f"vendor: expected songstats or apify, got {config.vendor!r}", allow_retries=False)
    try:
        account = None if config.account is None else UUID(config.account)
    except ValueError as error:
        raise dg.Failure(f"account: {config.account!r} is no UUID", allow_retries=False) from error
    if account is not None and not names.is_account_known(connection, account):
        raise dg.Failure(f"account: there is no account {account}", allow_retries=False)
    return PauseScope(account, None if config.vendor is None else PausableVendor(config.vendor))
