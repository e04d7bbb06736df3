"""Dependency audit: a vulnerability fails, an ignored one shows its reason, an unavailable source is not reported as clean."""

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


def packages(*entries: dict[str, Any]) -> str:
    return json.dumps({"dependencies": entries})


def test_a_known_vulnerability_fails_with_the_fixed_version(tmp_path: Path):
    done = audit(tmp_path, packages({"name": "thing", "version": "1.0", "vulns": [KNOWN]}))
    assert done.returncode == 1
    assert "thing 1.0: PYSEC-1, fixed in 2.0" in done.stdout


@pytest.mark.parametrize("name", ["PYSEC-1", "CVE-1"])
def test_an_ignored_vulnerability_is_printed_with_its_reason(tmp_path: Path, name: str):
    answer = packages({"name": "thing", "version": "1.0", "vulns": [KNOWN]})
    done = audit(tmp_path, answer, ignored={name: "that part is not used"})
    assert done.returncode == 0
    assert "thing 1.0: PYSEC-1, ignored: that part is not used" in done.stdout


@pytest.mark.parametrize(
    "answer", ["", "Traceback …", packages({"name": "thing", "skip_reason": "not found"}), packages()]
)
def test_without_a_source_one_line_says_that_nothing_was_audited(tmp_path: Path, answer: str):
    done = audit(tmp_path, answer)
    assert done.returncode == 0
    (line,) = done.stdout.splitlines()
    assert line.startswith("not audited: ")


def test_a_package_that_the_source_does_not_know_is_named(tmp_path: Path):
    clean = {"name": "thing", "version": "1.0", "vulns": []}
    done = audit(tmp_path, packages(clean, {"name": "stranger", "skip_reason": "not found"}))
    assert done.returncode == 0
    assert done.stdout == "audited 1 packages (pypi)\nnot audited, unknown to pypi: stranger\n"
