"""The analysts' views, one `.sql` file each in `views/`. `db upgrade` replaces them if their version differs.

They are not migrations: a view changes more often than a table, and a replaced view keeps its rights and dependants.
`create or replace` refuses to drop, rename or retype a column, which analysts rely on. A migration does that where needed.
"""

import re
from hashlib import sha256
from importlib import resources
from typing import Any, LiteralString

import psycopg
from psycopg import sql
from psycopg.rows import scalar_row

_STAMP = " Views of version "
_THERE = """
select count(*) from (
    select relname from pg_class where relnamespace = to_regnamespace('analytics') and relname = any(%(names)s)
    union all
    select distinct proname from pg_proc where pronamespace = to_regnamespace('analytics') and proname = any(%(names)s)
) as found
"""

# In order of creation: a view comes after those that it reads.
NAMES = (
    "play_count_points",
    "play_counts_as_of",
    "latest_play_counts",
    "daily_play_counts",
    "run_rates",
    "catalog_play_counts",
    "catalog_run_rates",
    "catalog_totals",
    "measurement_coverage",
    "import_differences",
    "backfill_progress",
    "spend",
    "data_dictionary",
)
FUNCTION = "play_counts_as_of"
# A relation or function after `from` or `join`; the name of a common table expression is neither.
_READ = re.compile(
    r"^\s*(?:from|(?:inner |left |cross )?join)(?: lateral)? ((?:analytics\.)?\w+)(?:\(.*\))? as ", re.MULTILINE
)
# What migration 0012 defines on the measurements, for views and for the HTTP API.
_ON_MEASUREMENTS = {
    f"analytics.{name}" for name in ("measured_counts", "latest_count_before", "first_count_since", "run_rates_over")
}
VIEWS = tuple(name for name in NAMES if name != FUNCTION)


def text(name: str) -> LiteralString:
    """The statements that make `analytics.<name>`."""
    # As in sql.py: it ships with the package, and is never built from input.
    return resources.files(__package__).joinpath("views", f"{name}.sql").read_text(encoding="utf-8")


def comments() -> LiteralString:
    """The COMMENT statements of all tables and columns."""
    # As in sql.py: it ships with the package, and is never built from input.
    return resources.files(__package__).joinpath("comments.sql").read_text(encoding="utf-8")


def version(*names: str) -> str:
    """Digest of the definitions of `names`; of all views and comments by default, which the data dictionary is stamped with."""
    texts = [text(name) for name in names] if names else [*(text(name) for name in NAMES), comments()]
    return sha256("\n".join(texts).encode()).hexdigest()[:12]


def about(name: str) -> str:
    """What a row of the view is, from its COMMENT."""
    found = re.search(rf"^comment on view analytics\.{name} is '(.*)';$", text(name), re.MULTILINE)
    if found is None:
        raise LookupError(f"views/{name}.sql has no COMMENT on the view {name}")
    return found[1].replace("''", "'")


def reads(name: str) -> frozenset[str]:
    """The tables it reads, and the views, which are named `analytics.…`."""
    found = _READ.findall(text(name))
    return frozenset("song_measurements" if relation in _ON_MEASUREMENTS else relation for relation in found)


def stamped(connection: psycopg.Connection[Any]) -> str | None:
    """The version of the database's views; None if any is missing."""
    with connection.cursor(row_factory=scalar_row) as cursor:
        cursor.execute("select obj_description(to_regclass('analytics.data_dictionary'), 'pg_class')")
        _, _, found = str(cursor.fetchone() or "").partition(_STAMP)
        cursor.execute(_THERE, {"names": list(NAMES)})
        return found if found and cursor.fetchone() == len(NAMES) else None


def apply(connection: psycopg.Connection[Any]) -> None:
    """Create this version's views inside the caller's transaction, unless they are up to date."""
    if stamped(connection) == version():
        return
    with connection.cursor() as cursor:
        for name in NAMES:
            cursor.execute(text(name))
        cursor.execute(comments())
        about = f"{_about(cursor)}{_STAMP}{version()}"
        cursor.execute(sql.SQL("comment on view analytics.data_dictionary is {}").format(sql.Literal(about)))


def _about(cursor: psycopg.Cursor[Any]) -> str:
    with cursor.connection.cursor(row_factory=scalar_row) as described:
        described.execute("select obj_description('analytics.data_dictionary'::regclass, 'pg_class')")
        return str(described.fetchone())
