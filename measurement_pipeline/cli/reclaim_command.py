"""`reclaim`: run the hourly reclaim now. `backfill/reclaim` and `intake/` decide what it repairs."""

import os
from dataclasses import asdict
from pathlib import Path

import click

from measurement_pipeline.cli import output, sandbox_command
from measurement_pipeline.cli.environment import open_environment
from measurement_pipeline.intake import process
from measurement_pipeline.postgres import songstats_ledger

_LABELS = {
    "transient": "failed rows requeued",
    "malformed": "malformed responses to parse again",
    "exhausted": "rows without attempts left",
    "reservations": "hits settled as unknown",
    "jobs_settled": "requests settled",
    "accounts_allowed_again": "accounts with a card again",
    "returned": "hits returned to the budget",
    "reconciliation": "hits of unknown outcome",
    "times_corrected": "times corrected after the clock was set back",
    "breaker": "breaker",
    "unpaid_looked_at": "unpaid requests checked",
    "unpaid_accepted": "of these accepted",
}


@click.command("reclaim")
@sandbox_command.port_option
@output.json_option
@click.pass_obj
def command(state: Path | None, *, sandbox_port: int | None, as_json: bool) -> None:
    """Repair the effects of crashes and transient failures, as the hourly schedule does.

    Only the schedule emits missing materializations of stored recordings.
    """
    # Imported late: it takes 0.5 s, and no other command needs it.
    from measurement_pipeline import services
    from measurement_pipeline.backfill import reclaim

    doubles = sandbox_command.find_doubles(sandbox_port, state)
    with open_environment(os.environ, state=state, doubles=doubles) as environment:
        configured = services.create_services(environment.settings)
        environment.require_own_database()
        sandbox_command.require_running_doubles(environment.settings, environment.kind)
        result = reclaim.reclaim_backfill(configured.backfill_config, configured.backfill_dependencies)
        unpaid = process.load_batch(environment.database_url, unpaid=True, limit=process.MAX_UNPAID_PER_RUN)
        processed = process.process_batch(
            environment.database_url,
            unpaid,
            process.check_payments(unpaid, configured.stripe.decide),
            run=f"reclaim by process {os.getpid()}",
            limits=configured.capture_limits,
        )
        with environment.connect() as connection:
            vendor = songstats_ledger.vendor_state(connection)
    counts = asdict(result)
    counts["unpaid_looked_at"] = len(unpaid.requests)
    counts["unpaid_accepted"] = sum(request.receipt is not None for request in processed)
    if as_json:
        output.print_json(counts)
        return
    breaker = "closed" if vendor.breaker == "closed" else f"OPEN, a person must close it: {vendor.reason}"
    labelled = {_LABELS[key]: value for key, value in counts.items()}
    output.console().print(output.build_facts({**labelled, "breaker": result.breaker or breaker}))
