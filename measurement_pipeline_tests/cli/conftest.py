"""The command line in this process, with only the test's environment variables."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from measurement_pipeline.cli import main
from measurement_pipeline.sandbox import SandboxClient
from measurement_pipeline.settings import Settings

Run = Callable[..., Result]

SETTINGS = [str(field.alias) for field in Settings.model_fields.values()]


@pytest.fixture
def cli(tmp_path: Path) -> Run:
    """`cli("jobs", "--json", DATABASE_URL=…)`; local state goes into the test's directory."""

    def run(*arguments: object, **environment: str) -> Result:
        given: dict[str, str | None] = {name: None for name in os.environ if name in SETTINGS}
        return CliRunner().invoke(
            main, ["--state", str(tmp_path / "local"), *map(str, arguments)], env={**given, **environment}
        )

    return run


@pytest.fixture
def run(cli: Run, database_url: str) -> Run:
    """The command line on the test's migrated database."""
    return lambda *arguments, **environment: cli(*arguments, **{"DATABASE_URL": database_url, **environment})


@pytest.fixture
def keys(sandbox: SandboxClient) -> dict[str, str]:
    """Settings that point commands to the test's doubles."""
    return sandbox.environment


def parse_json(result: Result) -> Any:
    """The parsed JSON output of a successful command."""
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)
