"""The check of dependencies: what is known fails, what is ignored says why, and what could not be asked is not called clean."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
KNOWN = {"id": "PYSEC-1", "aliases": ["CVE-1"], "fix_versions": ["2.0"], "description": ""}


def audit(tmp_path: Path, answer: str, *, ignored: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """The audit, with a pip-audit that prints `answer`."""
    script = (ROOT / ".ci" / "known_vulnerabilities.py").read_text(encoding="utf-8")
    assert "IGNORED: dict[str, str] = {" in script
    (tmp_path / "check.py").write_text(
        script.replace("IGNORED: dict[str, str] = {", f"IGNORED: dict[str, str] = {json.dumps(ignored or {})} | {{")
    )
    stub = tmp_path / "pip-audit"
    stub.write_text(f"#!{sys.executable}\nimport sys\nprint({answer!r})\nsys.exit(1)\n")
    stub.chmod(0o755)
    command = [sys.executable, tmp_path / "check.py", stub, ROOT / "requirements.lock"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def packages(*found: dict[str, Any]) -> str:
    return json.dumps({"dependencies": found})


def test_a_known_vulnerability_fails_the_check_and_says_what_mends_it(tmp_path: Path):
    done = audit(tmp_path, packages({"name": "thing", "version": "1.0", "vulns": [KNOWN]}))
    assert done.returncode == 1
    assert "thing 1.0: PYSEC-1, mended in 2.0" in done.stdout


@pytest.mark.parametrize("name", ["PYSEC-1", "CVE-1"])
def test_one_that_is_ignored_is_told_with_its_reason(tmp_path: Path, name: str):
    answer = packages({"name": "thing", "version": "1.0", "vulns": [KNOWN]})
    done = audit(tmp_path, answer, ignored={name: "that part is not used"})
    assert done.returncode == 0
    assert "thing 1.0: PYSEC-1, ignored: that part is not used" in done.stdout


@pytest.mark.parametrize(
    "answer", ["", "Traceback …", packages({"name": "thing", "skip_reason": "not found"}), packages()]
)
def test_where_nothing_can_be_asked_one_line_says_so(tmp_path: Path, answer: str):
    done = audit(tmp_path, answer)
    assert done.returncode == 0
    assert done.stdout.splitlines() == ["not audited: no data on vulnerabilities can be had from here (pypi, osv)"]


def test_a_package_that_the_source_does_not_know_is_named(tmp_path: Path):
    clean = {"name": "thing", "version": "1.0", "vulns": []}
    done = audit(tmp_path, packages(clean, {"name": "stranger", "skip_reason": "not found"}))
    assert done.returncode == 0
    assert done.stdout == "audited 1 packages (pypi)\nnot audited, being unknown there: stranger\n"
