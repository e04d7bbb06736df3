"""Each guard broken on purpose, in a copy of the tree: the test that is there for it must fail, and for the right reason."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from measurement_pipeline_tests.faults.guards import CAPTURES_SCHEMA, GUARDS, SCHEMA, Change, Guard
from measurement_pipeline_tests.faults.matrix import Proves

ROOT = Path(__file__).parents[2]
COPIED = ("measurement_pipeline", "measurement_pipeline_tests", "pyproject.toml")
IMPORTED_ELSEWHERE = 97

# Run by every Python of the copy at its start, children too.
ALL_IMPORT_THE_COPY = f"""
import importlib.util, os, pathlib, sys
here = pathlib.Path(__file__).parent
for package in ("measurement_pipeline", "measurement_pipeline_tests"):
    first = next(iter(importlib.util.find_spec(package).submodule_search_locations))
    if pathlib.Path(first).parent != here:
        print(f"{{package}} is imported from {{first}}, not from {{here}}", file=sys.stderr, flush=True)
        os._exit({IMPORTED_ELSEWHERE})
(here / "imported").touch()
"""


def changed(text: str, change: Change) -> str:
    """The text of the file with the one text replaced. Raises `AssertionError` unless it is there once: the guard has moved."""
    assert text.count(change.old) == 1, f"{change.file} holds {text.count(change.old)} times: {change.old!r}"
    return text.replace(change.old, change.new)


@dataclass(frozen=True)
class Copy:
    """A copy of the tree, whose tests make their databases on the server of `database_url`, after `template`."""

    directory: Path
    database_url: str
    template: str

    def change(self, change: Change) -> None:
        """Replace the one text."""
        path = self.directory / change.file
        path.write_text(changed(path.read_text(encoding="utf-8"), change), encoding="utf-8")

    def test(self, selection: str, *files: str) -> list[str | None]:
        """Run the tests of the copy, whose `files` were changed, that `selection` names: of each, why it failed, or None."""
        report = self.directory / "report.xml"
        # Migrating takes longer than most of these tests; what the migrations make is asked of a database of its own.
        template = [] if {SCHEMA, CAPTURES_SCHEMA} & set(files) else ["--template", self.template]
        passed_on = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
        ended = subprocess.run(
            # Only what these tests need: a start of pytest with all its plugins, and Dagster for its warnings, takes three
            # times as long.
            [
                sys.executable, "-m", "pytest", "-q", "-p", "pytest_timeout", "-p", "no:cacheprovider",
                "-o", "filterwarnings=default", "--timeout=180", f"--junitxml={report}", *template, selection,
            ],
            cwd=self.directory,
            env={
                **passed_on,
                "PYTHONPATH": str(self.directory),
                "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
                "DATABASE_URL": self.database_url,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )  # fmt: skip
        assert ended.returncode in {0, 1}, ended.stdout
        assert (self.directory / "imported").exists(), "nobody looked where the packages were imported from"
        suites = ET.parse(report).getroot()
        assert suites.findall(".//error") == [], ended.stdout
        failures = [case.find("failure") for case in suites.iter("testcase")]
        return [None if failure is None else failure.attrib["message"] for failure in failures]


@pytest.fixture
def copy(tmp_path: Path, empty_database_url: str, template: str) -> Iterator[Copy]:
    directory = tmp_path / "copy"
    directory.mkdir()
    for name in COPIED:
        if (ROOT / name).is_dir():
            # With what is compiled already, if not just being compiled. A changed file is compiled anew, since it is younger.
            shutil.copytree(ROOT / name, directory / name, ignore=shutil.ignore_patterns("*.pyc.*"))
        else:
            shutil.copy2(ROOT / name, directory)
    (directory / "sitecustomize.py").write_text(ALL_IMPORT_THE_COPY, encoding="utf-8")
    yield Copy(directory, empty_database_url, template)
    shutil.rmtree(directory)


def are_test_failures(messages: Sequence[str | None]) -> bool:
    """Whether something failed, and whatever did says that a promise was broken: no error of the variant's own."""
    failed = [message for message in messages if message is not None]
    return bool(failed) and all(message.startswith(("assert", "AssertionError", "Failed: ")) for message in failed)


# The others need the minutes of the long form.
IN_THE_SHORT_FORM = {
    "SKIP LOCKED",
    "the materialized claim",
    "the lease predicate of settling",
    "the advisory lock is a statement of its own",
    "reserve before the call",
    "keep before parsing and storing",
    "measurements are stored under the lease",
    "terminal states: a claim takes nothing that is settled",
    "unknown is not allowed: a request is taken in",
    "the deployment stamp, at every start",
    "the streak breaker",
    "captures: one run of the actor a part",
    "captures: a run is looked for before a second start",
}


def test_the_short_form_names_guards_that_there_are():
    assert {guard.name for guard in GUARDS} >= IN_THE_SHORT_FORM


@pytest.mark.parametrize(
    "guard",
    [
        pytest.param(guard, id=guard.name, marks=[] if guard.name in IN_THE_SHORT_FORM else [pytest.mark.long])
        for guard in GUARDS
    ],
)
def test_without_its_guard_a_promise_is_broken_and_a_test_says_so(
    guard: Guard, copy: Copy, proves: Proves, *, long_form: bool
):
    if long_form:
        assert set(copy.test(guard.caught_by)) == {None}, "with the guard in place it passes, in a copy too"
    for change in guard.changes:
        copy.change(change)
    found = copy.test(guard.caught_by, *(change.file for change in guard.changes))
    assert are_test_failures(found), found
    proves.guard(guard.name, guard.caught_by.partition("[")[0].rpartition("/")[2])


def test_each_guard_has_a_name_of_its_own_and_a_test_that_is_there():
    assert len({guard.name for guard in GUARDS}) == len(GUARDS)
    for guard in GUARDS:
        file, _, test = guard.caught_by.partition("::")
        assert f"def {test.partition('[')[0]}(" in (ROOT / file).read_text(encoding="utf-8"), guard.caught_by


def test_each_guard_is_in_the_code_once():
    for guard in GUARDS:
        texts = {change.file: (ROOT / change.file).read_text(encoding="utf-8") for change in guard.changes}
        for change in guard.changes:
            texts[change.file] = changed(texts[change.file], change)
