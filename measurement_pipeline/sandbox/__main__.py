"""`python -m measurement_pipeline.sandbox`: the doubles in a process of their own.

For the demo and the benchmark. Options are the fields of `Behaviour`.
"""

import json
import os
from dataclasses import replace
from pathlib import Path

import click

from measurement_pipeline.sandbox.catalogue import read_catalogue, sample_catalogue
from measurement_pipeline.sandbox.scenarios import PLAIN, Behaviour
from measurement_pipeline.sandbox.server import serve


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="A loopback address.")
@click.option("--port", default=0, help="0: any that is free.")
@click.option("--seed", default=Behaviour().seed, show_default=True)
@click.option(
    "--plain",
    is_flag=True,
    help="No unusual recordings: every recording has a history of usable numbers.",
)
@click.option(
    "--points",
    type=int,
    help="Number of points per recording up to the day of the catalogue's counts; one more for each day since.",
)
@click.option("--latency", default=0.0, help="Seconds added to every answer.")
@click.option("--actor-seconds", type=float, help="Duration of an actor run at Apify.")
@click.option("--search-lag", type=float, help="Seconds until Stripe's search finds a new customer.")
@click.option("--sample", is_flag=True, help="Know the sample catalogue.")
@click.option(
    "--catalogue",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Know this CSV file.",
)
@click.option(
    "--memory",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File that stores the vendors' state. Default: in memory, until the process ends.",
)
@click.option("--with-parent", is_flag=True, help="Stop when the parent process has ended.")
def main(
    host: str,
    port: int,
    seed: str,
    *,
    plain: bool,
    points: int | None,
    latency: float,
    actor_seconds: float | None,
    search_lag: float | None,
    sample: bool,
    catalogue: Path | None,
    memory: Path | None,
    with_parent: bool,
) -> None:
    """Loopback doubles of Songstats, Stripe, Apify and Spotify.

    Prints one line of JSON with their URLs once they listen.
    """
    behaviour = replace(PLAIN if plain else Behaviour(), seed=seed, points=points, latency=latency)
    if search_lag is not None:
        behaviour = replace(behaviour, search_lag=search_lag)
    if actor_seconds is not None:
        behaviour = replace(behaviour, actor_seconds=actor_seconds)
    known = sample_catalogue() if sample else {}
    if catalogue is not None:
        known |= read_catalogue(catalogue)
    parent = os.getppid()

    def ready(url: str) -> None:
        click.echo(json.dumps(dict.fromkeys(("songstats_url", "stripe_url", "apify_url", "spotify_url"), url)))

    serve(
        host,
        port,
        behaviour=behaviour,
        catalogue=known,
        memory=memory,
        on_ready=ready,
        should_stop=lambda: with_parent and os.getppid() != parent,
    )


if __name__ == "__main__":
    main()
