"""`reclaim`: the hourly sweep, now. What it puts right is decided in `backfill/sweep` and `intake/`."""

import os
from dataclasses import asdict
from pathlib import Path

import click

from measurement_pipeline.cli import output, sandbox_command
from measurement_pipeline.cli.environment import open_environment
from measurement_pipeline.intake import process as intake
from measurement_pipeline.postgres import songstats_ledger

_IN_WORDS = {
    "transient": "failed rows put back",
    "malformed": "malformed responses to read again",
    "exhausted": "rows out of attempts",
    "reservations": "hits settled as unknown",
    "jobs_settled": "requests settled",
    "accounts_allowed_again": "accounts with a card again",
    "returned": "hits returned to the budget",
    "reconciliation": "hits of unknown outcome",
    "times_corrected": "times corrected after the clock was set back",
    "breaker": "breaker",
    "unpaid_looked_at": "unpaid requests looked at",
    "unpaid_accepted": "of these accepted",
}


@click.command("reclaim")
@sandbox_command.port_option
@output.json_option
@click.pass_obj
def command(state: Path | None, *, sandbox_port: int | None, as_json: bool) -> None:
    """Repair what crashes and transient failures left behind: the same sweep as the hourly schedule's.

    Recordings stored but never shown in the UI are left to that one.
    """
    # Imported here: half a second that no other command needs.
    from measurement_pipeline import services
    from measurement_pipeline.backfill import reclaim

    doubles = sandbox_command.find_doubles(sandbox_port, state)
    with open_environment(os.environ, state=state, doubles=doubles) as environment:
        configured = services.create_services(environment.settings)
        environment.require_own_database()
        sandbox_command.require_running_doubles(environment.settings, environment.kind)
        swept = reclaim.reclaim_backfill(configured.backfill_config, configured.backfill_dependencies)
        unpaid = intake.load_batch(environment.database_url, unpaid=True, limit=intake.MAX_UNPAID_PER_RUN)
        taken = intake.process_batch(
            environment.database_url,
            unpaid,
            intake.check_payments(unpaid, configured.stripe.decide),
            run=f"reclaim by process {os.getpid()}",
            cap_usd=configured.cap_usd,
        )
        with environment.connect() as connection:
            vendor = songstats_ledger.vendor_state(connection)
    found = {
        **asdict(swept),
        "unpaid_looked_at": len(unpaid.requests),
        "unpaid_accepted": sum(one.receipt is not None for one in taken),
    }
    if as_json:
        output.print_json(found)
    else:
        told = {_IN_WORDS[key]: value for key, value in found.items()}
        standing = "closed" if vendor.breaker == "closed" else f"OPEN, a person's to close: {vendor.reason}"
        output.console().print(output.build_facts({**told, "breaker": swept.breaker or standing}))
