"""Dagster's private modules are used in two places, and only in the version that they were tested with."""

import re
from importlib.metadata import version
from pathlib import Path

import measurement_pipeline
from measurement_pipeline.defs.dagster_private import TESTED_VERSION

ROOT = Path(measurement_pipeline.__file__).parent.parent
PRIVATE = re.compile(r"^\s*(from|import) dagster(\w*\._|_shared)", re.MULTILINE)


def test_the_installed_version_is_the_tested_one():
    installed, tested = (name.split(".")[:2] for name in (version("dagster"), TESTED_VERSION))
    assert installed == tested, "run the tests of defs/, then change TESTED_VERSION in defs/dagster_private.py"


def test_no_other_module_imports_private_names():
    packages = ("measurement_pipeline", "measurement_pipeline_bench", "measurement_pipeline_tests")
    modules = [path for package in packages for path in (ROOT / package).rglob("*.py")]
    importing = {str(path.relative_to(ROOT)) for path in modules if PRIVATE.search(path.read_text(encoding="utf-8"))}
    assert importing == {
        "measurement_pipeline/defs/dagster_private.py",
        "measurement_pipeline_tests/dagster_private.py",
    }
