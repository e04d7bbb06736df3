"""`audit`: what must hold after any fault, asked of the tables, and of Dagster for what lies between the two. Only reads."""

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
    help="Assume that nothing is running. Open or unfinished work is then a breach too.",
)
@output.json_option
@click.pass_context
def command(ctx: click.Context, *, at_rest: bool, as_json: bool) -> None:
    """Check each invariant and list what breaks it. Exit status 1 on a breach."""
    with open_database(ctx.obj) as (environment, connection):
        # Dagster first: a row is done before it is shown.
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
            _say(finding)
        if left_out is not None:
            output.print_line(f"{'I13':<4} left out  {audit.SAYS['I13']}: {left_out}")
        output.print_line("")
        output.print_line(_verdict(broken, len(found), at_rest=at_rest))
    ctx.exit(1 if broken else 0)


def _materialized(environment: CliEnvironment) -> tuple[AbstractSet[str] | None, str | None]:
    """What Dagster shows as materialized; or why it cannot be known."""
    try:
        with open_dagster_instance(environment) as instance:
            from measurement_pipeline.defs.asset_keys import SONGSTATS_HISTORY

            return instance.get_materialized_partitions(SONGSTATS_HISTORY), None
    except CommandError as error:
        return None, error.message


def _say(finding: audit.AuditFinding) -> None:
    if not finding.breaches:
        output.print_line(f"{finding.invariant:<4} holds     {finding.says}")
        return
    count = len(finding.breaches)
    output.print_line(f"{finding.invariant:<4} BROKEN    {finding.says}: {counted(count, 'breach', 'breaches')}")
    for breach in finding.breaches[:_BREACHES_SHOWN]:
        output.print_line(f"               {breach}")
    if count > _BREACHES_SHOWN:
        output.print_line(f"               … and {count - _BREACHES_SHOWN:,} more")


def _verdict(broken: list[audit.AuditFinding], asked: int, *, at_rest: bool) -> str:
    under = "" if at_rest else "; what is under way may be open (--at-rest asks that too)"
    if broken:
        return f"{len(broken)} of {asked} invariants are broken: {', '.join(one.invariant for one in broken)}{under}"
    return f"{asked} invariants hold{under}"
