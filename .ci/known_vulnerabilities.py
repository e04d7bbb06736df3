#!/usr/bin/env python3
"""Holds every locked package against what is known of it, with pip-audit: status 1 where one has a known vulnerability.

Where neither source of pip-audit answers, nothing was audited: one line says so, with status 0. Run by `make check`.
"""

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

SOURCES = ("pypi", "osv")

# What is known and does not concern us, by its id, each with the reason.
IGNORED: dict[str, str] = {}


def ask(pip_audit: str, source: str, requirements: Path) -> list[dict[str, Any]] | None:
    """What `source` says of each package; None where it does not answer, or knows none of them."""
    options = ["--no-deps", "--disable-pip", "--progress-spinner", "off", "--timeout", "5", "--format", "json"]
    command = [pip_audit, "--vulnerability-service", source, "--requirement", str(requirements), *options]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout  # noqa: S603  # from our own lock
    try:
        found: list[dict[str, Any]] = json.loads(said)["dependencies"]
    except ValueError:
        return None
    # A mirror without the data answers as if it had never heard of any package.
    return found if any("vulns" in package for package in found) else None


def answering(pip_audit: str, lock: Path) -> str | None:
    """The first source that knows the lock's first package: asked alone, so that silence costs seconds."""
    with TemporaryDirectory() as directory:
        one = Path(directory) / "requirements.txt"
        one.write_text(lock.read_text(encoding="utf-8").split()[0], encoding="utf-8")
        return next((source for source in SOURCES if ask(pip_audit, source, one) is not None), None)


def main(pip_audit: str, lock: Path) -> int:
    """Print what was found; the exit status."""
    source = answering(pip_audit, lock)
    packages = None if source is None else ask(pip_audit, source, lock)
    if packages is None:
        sys.stdout.write(f"not audited: no data on vulnerabilities can be had from here ({', '.join(SOURCES)})\n")
        return 0
    status = 0
    for package in packages:
        for vulnerability in package.get("vulns", []):
            names = {vulnerability["id"], *vulnerability["aliases"]}
            reason = next((IGNORED[name] for name in names if name in IGNORED), None)
            mended = ", ".join(vulnerability["fix_versions"]) or "no version yet"
            ending = f"mended in {mended}" if reason is None else f"ignored: {reason}"
            sys.stdout.write(f"{package['name']} {package['version']}: {vulnerability['id']}, {ending}\n")
            status = status if reason else 1
    unknown = [package["name"] for package in packages if "vulns" not in package]
    sys.stdout.write(f"audited {len(packages) - len(unknown)} packages ({source})\n")
    if unknown:
        sys.stdout.write(f"not audited, being unknown there: {', '.join(unknown)}\n")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
