"""What the documents name exists, and what exists is named."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from measurement_pipeline.cli import main, sample_accounts
from measurement_pipeline.definitions import defs
from measurement_pipeline.domain.measurement_job import State
from measurement_pipeline.domain.outcome import Outcome
from measurement_pipeline.postgres import migrate, views
from measurement_pipeline.postgres.database import Connection, connect
from measurement_pipeline.settings import Settings
from measurement_pipeline_tests.faults.guards import GUARDS
from measurement_pipeline_tests.postgres.test_roles import logins_on
from measurement_pipeline_tests.workbench import Workbench, isrcs

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
ANALYSTS = (ROOT / "docs" / "analysts.md").read_text(encoding="utf-8")


def commands(group: click.Group, prefix: str = "") -> dict[str, click.Command]:
    context = click.Context(group)
    found: dict[str, click.Command] = {}
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            found |= commands(command, f"{prefix}{name} ")
        else:
            found[prefix + name] = command
    return found


def test_every_command_is_in_the_readme_and_the_reverse():
    table = README.split("| command | what it does |")[1].split("\n\n")[0]
    named = re.findall(r"`([^`]+)`", " ".join(row.split("|")[1] for row in table.replace("\\|", "¦").splitlines()[2:]))
    plain = {re.split(r" (?=[A-Z(\[-])", text)[0] for text in named}
    assert isinstance(main, click.Group)
    assert plain == set(commands(main))


def test_every_option_that_the_readme_names_exists():
    assert isinstance(main, click.Group)
    options = {
        option for command in commands(main).values() for parameter in command.params for option in parameter.opts
    }
    ours = README.replace("pip install", "").split("## Against a real database")[0]
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", ours)) - {"--help"}
    assert named
    assert named <= options


def test_the_settings_table_is_settings_py():
    table = README.split("<!-- settings")[1].split("<!-- /settings -->")[0]
    rows = {row.split("|")[1].strip(" `"): row for row in table.splitlines() if row.startswith("| `")}
    assert set(rows) == {field.alias for field in Settings.model_fields.values()}
    for field in Settings.model_fields.values():
        row = rows[str(field.alias)]
        assert str(field.description) in row
        default = "unset" if field.default is None else str(field.default).removesuffix(".0")
        assert f"| {default} |" in row.replace("`", "")


@pytest.mark.parametrize(
    "name",
    [
        *(key.to_user_string() for key in defs.resolve_asset_graph().get_all_asset_keys()),
        *(definition.name for definition in [*(defs.jobs or ()), *(defs.sensors or ()), *(defs.schedules or ())]),
    ],
)
def test_what_an_operator_meets_in_dagster_is_in_the_readme(name: str):
    if name == "backfill_reclaim":
        name = "reclaim_schedule"  # by which it is launched
    assert name in README


def test_states_and_outcomes_that_the_readme_names_exist():
    for state in (State.QUEUED, State.ACCEPTED, State.DONE, State.REJECTED, State.PAYMENT_REQUIRED):
        assert f"`{state}`" in README
    for outcome in (Outcome.EXHAUSTED, Outcome.MALFORMED, Outcome.TRANSIENT, Outcome.NO_HISTORY):
        assert f"`{outcome}`" in README


def test_every_make_target_of_the_readme_exists():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"(?:`|^)make ([a-z]+)", README, re.MULTILINE)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_readme_shows_every_guard_and_nothing_that_is_none():
    faults = README.split("<!-- faults")[1].split("<!-- /faults -->")[0]
    shown = re.findall(r"^\| (.+?) \| test_\w+\.py::", faults, re.MULTILINE)
    assert sorted(shown) == sorted(GUARDS)


def test_links_between_documents_lead_somewhere():
    for page in [ROOT / "README.md", *ROOT.glob("docs/**/*.md")]:
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} → {target}"


def test_the_analysts_page_holds_every_table_and_column_in_the_databases_own_words(connection: Connection):
    found = connection.execute(
        """
        select c.relname, a.attname, col_description(c.oid, a.attnum) as meaning, obj_description(c.oid) as about
        from pg_class as c inner join pg_attribute as a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
        where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'v') and c.relname <> 'alembic_version'
        """
    ).fetchall()
    sections = dict(re.findall(r"^### (\w+)\n(.*?)(?=^### |\Z)", ANALYSTS, re.MULTILINE | re.DOTALL))
    assert set(sections) == {row["relname"] for row in found}
    for row in found:
        section = sections[row["relname"]]
        assert row["about"] in section
        assert re.search(rf"\| `{row['attname']}` \| [^|]+ \| {re.escape(row['meaning'])} \|", section), row


def test_the_analysts_queries_run(connection: Connection):
    for query in re.findall(r"```sql\n(.*?)```", ANALYSTS, re.DOTALL):
        for statement in query.replace("'…'", "'00000000-0000-4000-8000-000000000000'").split(";"):
            if statement.strip():
                connection.execute(statement)  # type: ignore[arg-type]


def test_the_analysts_pandas_example_runs(database_url: str):
    (example,) = re.findall(r"```python\n(.*?)```", ANALYSTS, re.DOTALL)
    exec(example, {"ANALYSTS_URL": database_url})


def test_the_analysts_page_names_every_view():
    table = ANALYSTS.split("| view | one row")[1].split("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)`", table, re.MULTILINE)) == set(views.VIEWS)


def sample_catalogue(bench: Workbench) -> None:
    """What the tutorial asks about: five recordings bought a while ago, one unknown to Songstats, one with a file's own count."""
    songs = ["AA6Q72400001", *isrcs(4)]
    bench.sandbox.faults("/enterprise/v1/tracks/historic_stats", isrc=songs[4], status=404)
    bench.ask_for(songs)
    bench.cover(songs)
    bench.sql(
        "insert into song_measurements (song, platform, metric, captured_at, data_source, value)"
        " select song, platform, metric, captured_at, 'import', 2 * value + 100 from song_measurements"
        " where song = %s order by captured_at desc limit 1",
        songs[1],
    )
    bench.sql("update song_measurements set learnt_at = learnt_at - interval '60 days'")
    bench.sql("insert into accounts (id) values (%s) on conflict do nothing", bench.account)
    bench.sql("insert into catalogs (account, name) values (%s, 'sample')", bench.account)
    bench.sql("insert into catalog_songs select id, unnest(%s::text[]) from catalogs", songs)


@pytest.fixture
def analyst_url(bench: Workbench) -> Iterator[str]:
    """An analyst's login, with the limits that an upgrade gives it."""
    with logins_on(bench.database_url) as logins:
        url = logins.make("measurement_analyst")
        migrate.upgrade(bench.database_url, kind="sandbox")
        yield url


def test_the_tutorials_queries_run_for_an_analyst_and_find_what_they_ask_for(bench: Workbench, analyst_url: str):
    sample_catalogue(bench)
    queries = [
        statement
        for block in re.findall(r"```sql\n(.*?)```", TUTORIAL, re.DOTALL)
        for statement in block.split(";")
        if statement.strip()
    ]
    assert len(re.findall(r"^## \d\.", TUTORIAL, re.MULTILINE)) == 5
    with connect(analyst_url) as connection:
        rows = [len(connection.execute(query).fetchall()) for query in queries]  # type: ignore[call-overload]
    # A recording whose window is not covered, and a day to be distrusted, need not be there.
    assert [
        query
        for query, count in zip(queries, rows, strict=True)
        if not count and "null" not in query and "is_jump" not in query
    ] == []


def test_the_tutorial_begins_with_commands_that_there_are_on_what_dev_seeds():
    begin = TUTORIAL.split("```sh\n")[1].split("```")[0]
    assert "make dev" in TUTORIAL.split("```sh\n")[0]
    assert isinstance(main, click.Group)
    for line in re.findall(r"\.venv/bin/measurement-pipeline ([^)\n]+)", begin):
        name, *arguments = shlex.split(line)
        command = main.get_command(click.Context(main), name)
        assert command is not None
        command.make_context(name, arguments)
    account, catalog = sample_accounts.WITH_CARD, sample_accounts.CATALOGS[sample_accounts.WITH_CARD]
    assert f"--account {account} --catalog {catalog}\n" in begin
    assert not re.findall(r"(?<!\.venv/bin/)measurement-pipeline", TUTORIAL)


def test_a_fresh_sandbox_answers_now_what_the_tutorial_asks_of_a_month_ago(bench: Workbench):
    sample_catalogue(bench)
    bench.sql("update song_measurements set learnt_at = now() - interval '1 minute'")
    (query,) = re.findall(r"^select known\..*?(?=;)", TUTORIAL, re.MULTILINE | re.DOTALL)
    assert not bench.sql(query)
    assert bench.sql(query.replace("now() - interval '30 days'", "now()"))


def test_the_tutorials_script_runs_for_an_analyst(
    bench: Workbench, analyst_url: str, capsys: pytest.CaptureFixture[str]
):
    sample_catalogue(bench)
    (script,) = re.findall(r"```python\n(.*?)```", TUTORIAL, re.DOTALL)
    exec(script, {"DATABASE_URL": analyst_url})
    said = capsys.readouterr().out
    assert "falls:" in said
    cohort = [row["song"] for row in bench.sql("select song from analytics.catalog_run_rates where is_in_cohort")]
    assert sorted(re.findall(r"^(\w+) +0\.", said, re.MULTILINE)) == sorted(cohort)
