"""Analysts' queries on the views and on the bare table, at one and at ten million points, and their effect on the queue.

Rows read are those that the plan's scans returned or filtered out, by EXPLAIN ANALYZE. Times include fetching the result.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from threading import Event, Thread
from typing import Any
from uuid import uuid4

import psycopg
from psycopg import sql

from measurement_pipeline.postgres import account_shares, backfill_queue, migrate, roles
from measurement_pipeline.postgres.database import Connection, DatabaseError, connect
from measurement_pipeline_bench.figures import Figure, Findings, Target
from measurement_pipeline_bench.lab import Deployment, Lab, doubles, isrcs
from measurement_pipeline_bench.sql import statements

_SQL = statements("analysts")

_DAYS = 1_000
_AT_ONCE = 500
_TIMES = 3
_LONG_SECONDS = 2
_QUESTIONS = {
    "latest": "latest count of all recordings",
    "series": "one recording's daily series",
    "totals": "a catalogue's totals",
    "rates": "run rates of everything",
}
_HEAVY = ("heavy_series", "heavy_points", "heavy_rates")
_QUEUED = 20_000
_CLAIMED = 20
# A hundred recordings a second, claimed and released, which writes as much as an unthrottled backfill.
_PAUSE_SECONDS = 0.2
_MOST_TIMES_THE_QUIET = 2


@dataclass(frozen=True, slots=True)
class _Asked:
    seconds: float
    rows_read: int


def measure(lab: Lab) -> Findings:
    """Measure on a tenth of the table, then on all of it."""
    recordings = lab.size(10_000, 100)
    with doubles(points=1) as sandbox:
        deployment = lab.deployment(sandbox)
        with deployment.connect() as connection:
            connection.execute(_SQL["catalogue"])
            _fill(lab, connection, 1, recordings // 10)
            small = {name: _both(connection, name) for name in _QUESTIONS}
            _fill(lab, connection, recordings // 10 + 1, recordings)
            found = {}
            for name, question in _QUESTIONS.items():
                lab.say(f"analysts: {question}")
                found[name] = _both(connection, name)
            brin = _brin(connection)
        beside, details = _beside_the_queue(lab, deployment)
    points = f"{recordings * _DAYS:,} points"
    figures = [
        Figure(
            f"{_QUESTIONS[name]}, {points}",
            "ms",
            ours.seconds * 1_000,
            "the plain query on the bare table",
            bare.seconds * 1_000,
        )
        for name, (ours, bare) in found.items()
    ]
    read = {
        f"{_QUESTIONS[name]}: the view, the plain query": f"{ours.rows_read:,}, {bare.rows_read:,}"
        for name, (ours, bare) in found.items()
    }
    growth = {
        f"{_QUESTIONS[name]}: the view, the plain query": (
            f"{found[name][0].seconds / ours.seconds:.1f}, {found[name][1].seconds / bare.seconds:.1f}"
        )
        for name, (ours, bare) in small.items()
    }
    return Findings(
        [*figures, *beside],
        {
            f"rows read, {points}": read,
            "times as long on ten times the points": growth,
            "a BRIN on the day": brin,
            **details,
        },
    )


def _fill(lab: Lab, connection: Connection, first: int, last: int) -> None:
    lab.say(f"analysts: {(last - first + 1) * _DAYS:,} points")
    connection.execute(_SQL["recordings"], {"first": first, "last": last})
    for start in range(first, last + 1, _AT_ONCE):
        end = min(start + _AT_ONCE - 1, last)
        connection.execute(_SQL["points"], {"first": start, "last": end, "days": _DAYS})
    # Two in five belong to the catalogue.
    connection.execute(_SQL["list_songs"], {"size": last * 2 // 5})
    connection.execute(_SQL["tidy"])


def _both(connection: Connection, name: str) -> tuple[_Asked, _Asked]:
    return _ask(connection, f"{name}_ours"), _ask(connection, f"{name}_bare")


def _ask(connection: Connection, name: str) -> _Asked:
    seconds: list[float] = []
    # A slow query runs once, because it varies little.
    while len(seconds) < _TIMES and sum(seconds) < _LONG_SECONDS:
        since = time.monotonic()
        connection.execute(_SQL[name]).fetchall()
        seconds.append(time.monotonic() - since)
    return _Asked(median(seconds), _rows_read(_plan(connection, name)))


def _plan(connection: Connection, name: str) -> dict[str, Any]:
    (row,) = connection.execute("explain (analyze, buffers, timing off, format json) " + _SQL[name]).fetchall()
    plans = row["QUERY PLAN"]
    found: dict[str, Any] = (json.loads(plans) if isinstance(plans, str) else plans)[0]["Plan"]
    return found


def _rows_read(node: dict[str, Any]) -> int:
    """The rows that a plan's scans returned or filtered out."""
    own = 0
    if "Relation Name" in node:
        each = (
            node["Actual Rows"] + node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
        )
        own = round(each * node["Actual Loops"])
    return own + sum(_rows_read(child) for child in node.get("Plans", ()))


def _brin(connection: Connection) -> dict[str, Any]:
    """Blocks read by one day's total over all recordings, with the planner's choice and with the BRIN index forced."""
    without = _plan(connection, "one_day")
    connection.execute(_SQL["brin"])
    for statement in _SQL["only_brin"].split(";"):
        connection.execute(statement)
    by_brin = _plan(connection, "one_day")
    connection.execute(_SQL["any_plan"])
    connection.execute(_SQL["without_brin"])
    return {
        f"one day's total, {name}": f"{_rows_read(plan):,} rows read, {_blocks(plan):,} blocks"
        for name, plan in {"without it": without, "by it": by_brin}.items()
    }


def _blocks(plan: dict[str, Any]) -> int:
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


def _beside_the_queue(lab: Lab, deployment: Deployment) -> tuple[list[Figure], dict[str, Any]]:
    seconds = lab.size(90, 3)
    deployment.submit([f"AA6Q8{song[5:]}" for song in isrcs(_QUEUED)])
    deployment.process_requests()
    analyst = _analyst(deployment)
    lab.say(f"analysts: claims for {seconds} s, without other sessions")
    quiet, before = _claims(deployment, seconds)
    figures, details = [], {"quiet": f"{len(quiet)} claims, {before['dead']:,} dead rows of the queue"}
    # One query, then as many as an analyst's login may run at once after an upgrade.
    target = Target("ratio", at_most=_MOST_TIMES_THE_QUIET)
    for sessions in (1, roles.ANALYSTS_CONNECTIONS):
        beside = f"beside {sessions} analyst{'s' if sessions > 1 else ''}"
        lab.say(f"analysts: the same {beside}, who ask{'' if sessions > 1 else 's'} the heaviest queries")
        with _asking(analyst, sessions) as answers:
            busy, rows = _claims(deployment, seconds)
        note = f"claims of {_CLAIMED} rows one after the other, beside {', '.join(_HEAVY)} without a pause"
        for name, percent in (("p99", 99), ("median", 50)):
            ours, bare = (_percentile(durations, percent) * 1_000 for durations in (busy, quiet))
            held_to = target if percent == 99 else None
            figures.append(Figure(f"claim {beside}, {name}", "ms", ours, "the same, quiet", bare, held_to, note))
        at_most = Target("ratio", at_most=1)
        figures.append(
            Figure(f"dead rows {beside}", "rows", rows["dead"], "the queue's live ones", rows["live"], at_most)
        )
        details[beside] = f"{len(busy)} claims, {len(answers)} answers to analysts"
    return figures, {"beside the queue": details}


def _analyst(deployment: Deployment) -> str:
    """The URL of an analyst's login, with the limits that an upgrade sets."""
    name = f"analyst_{uuid4().hex[:8]}"
    with deployment.connect() as connection:
        connection.execute(sql.SQL("create role {} login in role measurement_analyst").format(sql.Identifier(name)))
    migrate.upgrade(deployment.database_url, kind="sandbox")
    return psycopg.conninfo.make_conninfo(deployment.database_url, user=name)


@contextmanager
def _asking(url: str, sessions: int) -> Iterator[list[str]]:
    """Run the heaviest queries again and again until the block ends; count the results."""
    over, answers, failures = Event(), list[str](), list[BaseException]()
    connections = [connect(url) for _ in range(sessions)]

    def ask(place: int) -> None:
        turn = place
        while not over.is_set():
            name = _HEAVY[turn % len(_HEAVY)]
            turn += 1
            try:
                connections[place].execute(_SQL[name]).fetchall()
            except DatabaseError as error:
                if not over.is_set():
                    failures.append(error)
                return
            answers.append(name)

    threads = [Thread(target=ask, args=(place,)) for place in range(sessions)]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        over.set()
        for connection in connections:
            connection.cancel_safe()
        for thread in threads:
            thread.join()
        for connection in connections:
            connection.close()
        time.sleep(1)  # until they count no more
    if failures:
        raise failures[0]


def _claims(deployment: Deployment, seconds: float) -> tuple[list[float], dict[str, Any]]:
    """The duration of each claim, and the queue's rows at the end."""
    rules = deployment.services().backfill_config.rules
    took = []
    with deployment.connect() as connection:
        due = [row.song for row in account_shares.due(connection, rules)]
        until = time.monotonic() + seconds
        turn = 0
        while time.monotonic() < until:
            start = turn * _CLAIMED % (len(due) - _CLAIMED)
            turn += 1
            since = time.monotonic()
            claimed = backfill_queue.claim(
                connection, due[start : start + _CLAIMED], run="bench", limit=_CLAIMED, rules=rules
            )
            took.append(time.monotonic() - since)
            if len(claimed) != _CLAIMED:
                raise RuntimeError(f"claimed {len(claimed)} of {_CLAIMED} rows")
            backfill_queue.release(connection, run="bench")
            time.sleep(max(0.0, since + _PAUSE_SECONDS - time.monotonic()))
        (rows,) = connection.execute(_SQL["queue_rows"]).fetchall()
    return took, rows


def _percentile(values: list[float], percent: int) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) * percent // 100, len(ordered) - 1)]
