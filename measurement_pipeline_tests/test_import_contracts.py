"""The import contracts of pyproject.toml reject a new package that imports everything."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import measurement_pipeline

PACKAGE = Path(measurement_pipeline.__file__).parent
PYPROJECT = PACKAGE.parent / "pyproject.toml"


def lint(project: Path) -> tuple[int, str]:
    """Exit status and report of import-linter on `project`."""
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache", "--no-logo"]
    environment = {**os.environ, "NO_COLOR": "1", "COLUMNS": "200"}
    ran = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
    return ran.returncode, ran.stdout + ran.stderr


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the package and its contracts."""
    shutil.copy(PYPROJECT, tmp_path)
    shutil.copytree(PACKAGE, tmp_path / PACKAGE.name, ignore=lambda _, names: [n for n in names if n == "__pycache__"])
    return tmp_path


def test_a_new_top_level_package_that_imports_everything_breaks_the_contracts(project: Path):
    package = project / "measurement_pipeline" / "intruder"
    package.mkdir()
    (package / "__init__.py").write_text(
        "import psycopg\nimport stripe\nimport dagster\nfrom measurement_pipeline import sandbox, settings\n"
    )
    status, report = lint(project)
    assert status == 1
    broken = {line.removesuffix(" BROKEN") for line in report.splitlines() if line.endswith("BROKEN")}
    assert {name.partition(":")[0] for name in broken} == {
        "Layers",
        "Only defs and cli import dagster",
        "Only postgres imports psycopg",
        "Only vendors.stripe imports stripe",
        "Vendor doubles are imported by local processes and commands only",
    }
    assert "intruder" in report
