"""`audit`: check the invariants that must hold after any fault, in the tables and in Dagster's storage. Read-only."""

from collections.abc import Set as AbstractSet
from dataclasses import asdict

import click

from measurement_pipeline.cli import output
from measurement_pipeline.cli.dagster_instance import open_dagster_instance
from measurement_pipeline.cli.environment import CliEnvironment, open_database
from measurement_pipeline.domain.text import counted
from measurement_pipeline.local.errors import CommandError
from measurement_pipeline.postgres import audit

_BREACHES_SHOWN = 10


@click.command("audit")
@click.option(
    "--at-rest",
    is_flag=True,
    help="Assume that nothing is running. Then open or unfinished work is a breach too.",
)
@output.json_option
@click.pass_context
def command(ctx: click.Context, *, at_rest: bool, as_json: bool) -> None:
    """Check each invariant and list its breaches. Exit status 1 on a breach."""
    with open_database(ctx.obj) as (environment, connection):
        # Dagster first, because a row is done before its partition is materialized.
        materialized, left_out = _materialized(environment)
        found = audit.audit(
            connection, max_attempts=environment.settings.max_attempts, at_rest=at_rest, materialized=materialized
        )
    broken = [finding for finding in found if finding.breaches]
    if as_json:
        output.print_json(
            {
                "kind": environment.kind,
                "at_rest": at_rest,
                "holds": not broken,
                "invariants": [{**asdict(finding), "holds": not finding.breaches} for finding in found],
                "left_out": {} if left_out is None else {"I13": left_out},
            }
        )
    else:
        for finding in found:
            _print_finding(finding)
        if left_out is not None:
            output.print_line(f"{'I13':<4} left out  {audit.SAYS['I13']}: {left_out}")
        output.print_line("")
        output.print_line(_summarise(broken, len(found), at_rest=at_rest))
    ctx.exit(1 if broken else 0)


def _materialized(environment: CliEnvironment) -> tuple[AbstractSet[str] | None, str | None]:
    """Return the materialized partitions; or None and the reason if they are unknown."""
    try:
        with open_dagster_instance(environment) as instance:
            from measurement_pipeline.defs.asset_keys import SONGSTATS_HISTORY

            return instance.get_materialized_partitions(SONGSTATS_HISTORY), None
    except CommandError as error:
        return None, error.message


def _print_finding(finding: audit.AuditFinding) -> None:
    if not finding.breaches:
        output.print_line(f"{finding.invariant:<4} holds     {finding.says}")
        return
    count = len(finding.breaches)
    output.print_line(f"{finding.invariant:<4} BROKEN    {finding.says}: {counted(count, 'breach', 'breaches')}")
    for breach in finding.breaches[:_BREACHES_SHOWN]:
        output.print_line(f"               {breach}")
    if count > _BREACHES_SHOWN:
        output.print_line(f"               … and {count - _BREACHES_SHOWN:,} more")


def _summarise(broken: list[audit.AuditFinding], checked: int, *, at_rest: bool) -> str:
    note = "" if at_rest else "; work in progress may be open (--at-rest checks that too)"
    if broken:
        invariants = ", ".join(finding.invariant for finding in broken)
        return f"{len(broken)} of {checked} invariants are broken: {invariants}{note}"
    return f"{checked} invariants hold{note}"
