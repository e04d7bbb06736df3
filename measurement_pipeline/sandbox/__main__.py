"""`python -m measurement_pipeline.sandbox`: the doubles in a process of their own, for the benchmark and for tests."""

import json
import os
from dataclasses import replace
from pathlib import Path

import click

from measurement_pipeline.sandbox.catalogue import sample_catalogue
from measurement_pipeline.sandbox.scenarios import PLAIN, Behaviour
from measurement_pipeline.sandbox.server import serve


@click.command()
@click.option("--plain", is_flag=True, help="No unusual recordings: every recording has a history of usable numbers.")
@click.option(
    "--points",
    type=int,
    help="Number of points per recording up to the day of the catalogue's counts; one more for each day since.",
)
@click.option("--latency", default=0.0, help="Seconds added to every answer.")
@click.option("--search-lag", default=0.0, help="Seconds until Stripe's search finds a new customer.")
@click.option("--sample", is_flag=True, help="Know the sample catalogue.")
@click.option(
    "--memory",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File that stores the vendors' state. Default: in memory, until the process ends.",
)
@click.option("--with-parent", is_flag=True, help="Stop when the parent process has ended.")
def main(
    *,
    plain: bool,
    points: int | None,
    latency: float,
    search_lag: float,
    sample: bool,
    memory: Path | None,
    with_parent: bool,
) -> None:
    """Loopback doubles of Songstats, Stripe, Apify and Spotify.

    Prints one line of JSON with their URL once they listen.
    """
    parent = os.getppid()
    serve(
        behaviour=replace(PLAIN if plain else Behaviour(), points=points, latency=latency, search_lag=search_lag),
        catalogue=sample_catalogue() if sample else None,
        memory=memory,
        on_ready=lambda url: click.echo(json.dumps({"songstats_url": url})),
        should_stop=lambda: with_parent and os.getppid() != parent,
    )


if __name__ == "__main__":
    main()
