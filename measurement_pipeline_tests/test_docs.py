"""The documents and the code agree: names, commands, options, columns, links, queries and the generated reference."""

import importlib.util
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

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
DOCS = ROOT / "docs"
README, CONTRIBUTING, SECURITY = (ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md"))
PAGES = [README, CONTRIBUTING, SECURITY, ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md"))]
FIVE_QUESTIONS = (DOCS / "tutorials" / "five-questions.md").read_text(encoding="utf-8")
QUERY_THE_VIEWS = (DOCS / "how-to" / "query-the-views.md").read_text(encoding="utf-8")
MONEY_PATH = (DOCS / "explanation" / "money-path.md").read_text(encoding="utf-8")


def script(name: str) -> ModuleType:
    """A script of the directory .ci as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / ".ci" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def commands() -> dict[str, click.Command]:
    assert isinstance(main, click.Group)
    result: dict[str, click.Command] = script("reference").commands(main)
    return result


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def without_code(text: str) -> str:
    """The text without fenced blocks and inline code, which may look like links and headings."""
    return re.sub(r"`[^`\n]*`", "", re.sub(r"```.*?```", "", text, flags=re.DOTALL))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and MkDocs both make them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text_of(page), flags=re.DOTALL), re.MULTILINE)
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "") for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in plain}


def test_the_reference_is_an_exact_copy_of_what_the_code_generates(connection: Connection):
    for name, text in script("reference").pages(connection).items():
        assert text_of(DOCS / "reference" / name) == text, f"{name} is out of date: run `make reference`"


def test_the_reference_has_every_setting_command_table_and_view(connection: Connection):
    # The generator could leave one out; these lists are made without it.
    reference = {page.stem: text_of(page) for page in (DOCS / "reference").glob("*.md")}
    for field in Settings.model_fields.values():
        assert f"| `{field.alias}` |" in reference["settings"]
    for name in commands():
        assert f"\n## {name}\n" in reference["cli"]
    tables = connection.execute(
        "select relname from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'v')"
        " and relname <> 'alembic_version'"
    ).fetchall()
    for row in tables:
        assert f"\n## {row['relname']}\n" in reference["tables"]
    for view in views.VIEWS:
        assert f"\n## {view}\n" in reference["views"]
    for key in defs.resolve_asset_graph().get_all_asset_keys():
        assert f"| `{key.to_user_string()}` |" in reference["checks-and-alerts"]
    for definition in [*(defs.jobs or ()), *(defs.sensors or ()), *(defs.schedules or ())]:
        assert f"| `{definition.name}` |" in reference["checks-and-alerts"]


def test_the_readme_is_read_in_three_minutes():
    assert len(text_of(README).splitlines()) <= 180


def test_the_readme_shows_both_pictures_and_they_are_small():
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text_of(README))
    assert len(pictures) == 2
    for picture in pictures:
        assert 10_000 < (ROOT / picture).stat().st_size < 200_000


def test_every_option_that_the_documents_name_exists():
    ours = {option for command in commands().values() for parameter in command.params for option in parameter.opts}
    ours |= {option for parameter in main.params for option in parameter.opts} | {"--help"}
    # Options of git, pip, PostgreSQL's tools, Dagster and pytest.
    others = {
        "--no-deps",
        "--require-hashes",
        "--format",
        "--file",
        "--dbname",
        "--no-owner",
        "--roles-only",
        "--location-name",
    }
    others |= {
        "--socket",
        "--read-only",
        "--long",
        "--encoding",
        "--template",
        "--owner",
        "--role",
    }
    for page in PAGES:
        named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text_of(page)))
        assert named <= ours | others, page


def test_every_command_that_the_documents_name_exists():
    groups = {name.split()[0] for name in commands()}
    for page in PAGES:
        assert set(re.findall(r"measurement-pipeline ([a-z]+)", text_of(page))) <= groups, page


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=lambda page: page.name)
def test_shell_examples_are_commands_with_arguments_that_click_accepts(page: Path):
    assert isinstance(main, click.Group)
    for block in blocks(text_of(page), "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            for call in re.findall(
                r"measurement-pipeline ((?:--[a-z-]+ \S+ )?[a-z][^)#|\n]*)", re.sub(r"measurement-pipeline\)", "", line)
            ):
                arguments = shlex.split(call)
                name = next(name for name in (" ".join(arguments[:2]), arguments[0]) if name in commands())
                context = commands()[name].make_context(name, arguments[len(name.split()) :], resilient_parsing=True)
                given = {part for part in arguments if part.startswith("--")}
                assert given <= {option for parameter in context.command.params for option in parameter.opts}, call


def test_every_make_target_that_the_documents_name_exists():
    makefile = text_of(ROOT / "Makefile")
    for page in PAGES:
        for target in set(re.findall(r"(?:`|^)make ([a-z]+)", text_of(page), re.MULTILINE)):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"{page.name}: {target}"


def test_the_settings_that_the_documents_name_exist():
    known = {str(field.alias) for field in Settings.model_fields.values()}
    prefixes = {name.split("_")[0] for name in known} - {"DATABASE", "DAGSTER", "DEPLOYMENT", "MAX"}
    for page in PAGES:
        assert set(re.findall(rf"`((?:{'|'.join(prefixes)})_[A-Z_]*[A-Z])[`=]", text_of(page))) <= known, page


def test_states_and_outcomes_are_explained():
    for state in State:
        assert f"`{state}`" in MONEY_PATH
    for outcome in Outcome:
        assert f"`{outcome}`" in MONEY_PATH


def test_the_guarantees_list_exactly_the_guards():
    text = text_of(DOCS / "explanation" / "guarantees.md")
    shown = re.findall(r"^- (.+)$", text.split("<!-- guards -->")[1].split("<!-- /guards -->")[0], re.MULTILINE)
    assert sorted(shown) == sorted(GUARDS)


def test_messages_that_troubleshooting_quotes_are_in_the_code():
    page = text_of(DOCS / "how-to" / "troubleshoot.md")
    symptoms, reasons = (
        page.split(f"\n## {title}\n")[1].split("\n## ")[0] for title in ("By symptom", "Why nothing is bought")
    )
    quoted = [
        text for row in re.findall(r"^\| (.+?) \|", symptoms, re.MULTILINE) for text in re.findall(r"`([^`]+)`", row)
    ]
    quoted = [text.removesuffix("…").strip() for text in quoted if " " in text and "make " not in text]
    starts = re.findall(r"^\| (?:Waiting: )?(?:… )?(.+?)(?:, the next at T| until T)? \|", reasons, re.MULTILINE)[1:]
    assert len(quoted) >= 4
    assert len(starts) == 13
    code = "".join(text_of(file) for file in (ROOT / "measurement_pipeline").rglob("*.py"))
    # A message that counts has its plural in the code.
    code += re.sub(r"\{counted\([^{}]*'([^']*)'\)\}", r"\1", code)
    dagsters = {"could not find storage"}
    for text in [*quoted, *starts]:
        assert text in dagsters or text in code or text.replace("waits", "wait") in code, text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_pages_and_headings_that_exist(page: Path):
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", without_code(text_of(page))):
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), f"{page.name} → {target}"
        assert not anchor or anchor in anchors(linked), f"{page.name} → {target}"


def test_source_files_that_the_documents_name_exist():
    files = [
        f"/{file.relative_to(ROOT)}"
        for folder in ("measurement_pipeline*", ".ci")
        for file in ROOT.glob(f"{folder}/**/*")
    ]
    for page in PAGES:
        for named in re.findall(r"`([\w./-]+\.(?:py|sql|yaml))`", text_of(page)):
            assert any(file.endswith(f"/{named}") for file in files), f"{page.name}: {named}"


def test_the_site_links_to_no_file_outside_it():
    for page in DOCS.rglob("*.md"):
        for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", without_code(text_of(page))):
            assert (page.parent / target).resolve().is_relative_to(DOCS), f"{page.name} → {target}"


def test_the_decisions_are_numbered_and_listed_by_their_titles():
    listed = re.findall(r"^- \[(.+)\]\((.+)\)$", text_of(DOCS / "decisions" / "index.md"), re.MULTILINE)
    records = sorted(DOCS.glob("decisions/0*.md"))
    assert listed == [(text_of(record).splitlines()[0].removeprefix("# "), record.name) for record in records]
    for title, name in listed:
        assert title.startswith(f"{int(name[:4])}. ")


def test_decision_records_that_the_code_names_exist():
    numbers = {page.name[:4] for page in DOCS.glob("decisions/0*.md")}
    for file in [*(ROOT / "measurement_pipeline").rglob("*.py"), *(ROOT / "measurement_pipeline").rglob("*.sql")]:
        for number in re.findall(r"docs/decisions/(\d{4})", text_of(file)):
            assert number in numbers, file


def test_no_page_has_a_retired_word():
    # The reference repeats texts of the code, which the script checks there.
    pages = [str(page.relative_to(ROOT)) for page in PAGES if page.parent.name != "reference"]
    checked = subprocess.run(
        [sys.executable, ".ci/plain_words.py", *pages],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout


def test_the_queries_of_the_how_to_run(connection: Connection):
    for query in blocks(QUERY_THE_VIEWS, "sql"):
        for statement in query.replace("'…'", "'00000000-0000-4000-8000-000000000000'").split(";"):
            if statement.strip():
                connection.execute(statement)  # type: ignore[arg-type]


def test_the_pandas_example_of_the_how_to_runs(database_url: str):
    (example,) = blocks(QUERY_THE_VIEWS, "python")
    exec(example, {"ANALYSTS_URL": database_url})


def test_the_how_to_names_every_view():
    table = QUERY_THE_VIEWS.split("| view | one row")[1].split("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)`", table, re.MULTILINE)) == set(views.VIEWS)


def sample_catalogue(bench: Workbench) -> None:
    """Data for the tutorial: five recordings bought a while ago, one unknown to Songstats, one with an imported count."""
    songs = ["AA6Q72400001", *isrcs(4)]
    bench.sandbox.faults("/enterprise/v1/tracks/historic_stats", isrc=songs[4], status=404)
    bench.submit_request(songs)
    bench.run_backfill(songs)
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


def test_the_tutorials_queries_run_for_an_analyst_and_return_rows(bench: Workbench, analyst_url: str):
    sample_catalogue(bench)
    queries = [
        statement for block in blocks(FIVE_QUESTIONS, "sql") for statement in block.split(";") if statement.strip()
    ]
    assert len(re.findall(r"^## \d\.", FIVE_QUESTIONS, re.MULTILINE)) == 5
    with connect(analyst_url) as connection:
        rows = [len(connection.execute(query).fetchall()) for query in queries]  # type: ignore[call-overload]
    # A recording whose window is not covered, and a doubtful day, need not exist.
    assert [
        query
        for query, count in zip(queries, rows, strict=True)
        if not count and "null" not in query and "is_jump" not in query
    ] == []


@pytest.mark.parametrize("name", ["first-backfill.md", "five-questions.md"])
def test_the_tutorials_use_commands_and_accounts_that_dev_provides(name: str):
    text = text_of(DOCS / "tutorials" / name)
    assert "make dev" in text
    assert isinstance(main, click.Group)
    calls = re.findall(r"\.venv/bin/measurement-pipeline ([^)\n]+)", "\n".join(blocks(text, "sh")))
    assert calls
    for call in calls:
        command_name, *arguments = shlex.split(call)
        command = main.get_command(click.Context(main), command_name)
        assert command is not None
        if not isinstance(command, click.Group):
            command.make_context(command_name, arguments)
    account, catalog = sample_accounts.WITH_CARD, sample_accounts.CATALOGS[sample_accounts.WITH_CARD]
    assert f"--account {account} --catalog {catalog}\n" in text
    assert not re.findall(r"(?<!\.venv/bin/)measurement-pipeline", "\n".join(blocks(text, "sh")))


def test_the_clients_tutorial_uses_the_sandboxes_key():
    assert sample_accounts.API_KEY in text_of(DOCS / "tutorials" / "first-job.md")
    assert sample_accounts.API_KEY in text_of(README)


def test_a_new_sandbox_answers_the_tutorials_query_about_a_month_ago(bench: Workbench):
    sample_catalogue(bench)
    bench.sql("update song_measurements set learnt_at = now() - interval '1 minute'")
    (query,) = re.findall(r"^select known\..*?(?=;)", FIVE_QUESTIONS, re.MULTILINE | re.DOTALL)
    assert not bench.sql(query)
    assert bench.sql(query.replace("now() - interval '30 days'", "now()"))


def test_the_tutorials_script_runs_for_an_analyst(
    bench: Workbench, analyst_url: str, capsys: pytest.CaptureFixture[str]
):
    sample_catalogue(bench)
    (example,) = blocks(FIVE_QUESTIONS, "python")
    exec(example, {"DATABASE_URL": analyst_url})
    printed = capsys.readouterr().out
    assert "falls:" in printed
    cohort = [row["song"] for row in bench.sql("select song from analytics.catalog_run_rates where is_in_cohort")]
    assert sorted(re.findall(r"^(\w+) +0\.", printed, re.MULTILINE)) == sorted(cohort)
