"""Statements: each file is read, and each statement is used and exists."""

import re
from importlib import resources
from pathlib import Path

import pytest

from measurement_pipeline.postgres import views
from measurement_pipeline.postgres.audit import SAYS
from measurement_pipeline.postgres.sql import statements

PACKAGE = Path(str(resources.files("measurement_pipeline.postgres")))
FILES = sorted(path.stem for path in PACKAGE.glob("*.sql"))


@pytest.mark.parametrize("module", FILES)
def test_every_statement_is_used_and_every_used_one_exists(module: str):
    users = [
        text
        for path in PACKAGE.glob("*.py")
        if re.search(rf'statements\("{module}"\)', text := path.read_text(encoding="utf-8"))
    ]
    used = {name for text in users for name in re.findall(r'_SQL\["(\w+)"\]', text)}
    if module == "audit":  # one per named invariant, read by name
        used |= set(SAYS) - {"I13"}
    if module == "analytics":  # one per view, read by its name
        used |= {f"rows_{view}" for view in views.VIEWS}
    if module == "partition_keys":  # three per kind of partition, read by its name
        used |= {result for kind in ("catalog", "capture") for result in (kind, f"{kind}s", f"name_{kind}")}
    assert used == set(statements(module))


def test_a_statement_is_the_text_between_two_names():
    result = statements("migrate")
    assert result["lock"].rstrip(";") == "select pg_advisory_xact_lock(%(key)s)"


def test_migrations_are_sql_files_numbered_without_a_gap():
    """`db upgrade` runs the .sql files in order of their numbers. A migration has no other file."""
    names = sorted(path.name for path in (PACKAGE / "migrations" / "versions").iterdir() if path.is_file())
    assert [name[:5] for name in names] == [f"{number:04}_" for number in range(1, len(names) + 1)]
    assert {Path(name).suffix for name in names} == {".sql"}


def test_each_search_for_a_latest_count_filters_its_sources():
    """Without a filter, a newer import outranks a measurement. `latest_counts` is the shared definition."""
    searches = {
        f"{path.name}: {result[2].strip()}": re.search(r"data_source (?:<>|=|in) ", result[2])
        for path in PACKAGE.rglob("*.sql")
        for result in re.finditer(
            r"from song_measurements as (\w+)((?:(?!from song_measurements).)*?)order by \1\.captured_at desc",
            path.read_text(encoding="utf-8"),
            re.DOTALL,
        )
    }
    assert len(searches) >= 5
    assert [search for search, sources in searches.items() if sources is None] == []
