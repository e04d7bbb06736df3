#!/usr/bin/env python3
"""Check all locked packages for known vulnerabilities with pip-audit. Exit status 1 if one has any. Part of `make check`.

If neither source of pip-audit answers, print that nothing was audited and exit with 0. Plain pip-audit would fail without a
network, and would report no vulnerabilities behind a mirror that has no such data.
"""

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

SOURCES = ("pypi", "osv")

# Vulnerabilities that do not affect this project: id and reason.
IGNORED: dict[str, str] = {}


def audit(pip_audit: str, source: str, requirements: Path) -> list[dict[str, Any]] | None:
    """Return the result of `source` for each package, or None if it does not answer or knows none of them."""
    options = ["--no-deps", "--disable-pip", "--progress-spinner", "off", "--timeout", "5", "--format", "json"]
    command = [pip_audit, "--vulnerability-service", source, "--requirement", str(requirements), *options]
    output = subprocess.run(command, capture_output=True, text=True, check=False).stdout  # noqa: S603  # from our own lock
    try:
        packages: list[dict[str, Any]] = json.loads(output)["dependencies"]
    except ValueError:
        return None
    # A mirror without vulnerability data reports each package as unknown.
    return packages if any("vulns" in package for package in packages) else None


def find_source(pip_audit: str, lock: Path) -> str | None:
    """Return the first source that knows the first package of the lock. One package only, so that no answer costs seconds."""
    with TemporaryDirectory() as directory:
        one = Path(directory) / "requirements.txt"
        one.write_text(lock.read_text(encoding="utf-8").split()[0], encoding="utf-8")
        return next((source for source in SOURCES if audit(pip_audit, source, one) is not None), None)


def main(pip_audit: str, lock: Path) -> int:
    """Audit the lock, print the result and return the exit status."""
    source = find_source(pip_audit, lock)
    packages = None if source is None else audit(pip_audit, source, lock)
    if packages is None:
        sys.stdout.write(f"not audited: no vulnerability data is available from {' or '.join(SOURCES)}\n")
        return 0
    status = 0
    for package in packages:
        for vulnerability in package.get("vulns", []):
            names = {vulnerability["id"], *vulnerability["aliases"]}
            reason = next((IGNORED[name] for name in names if name in IGNORED), None)
            fixed = ", ".join(vulnerability["fix_versions"]) or "no version yet"
            ending = f"fixed in {fixed}" if reason is None else f"ignored: {reason}"
            sys.stdout.write(f"{package['name']} {package['version']}: {vulnerability['id']}, {ending}\n")
            status = status if reason else 1
    unknown = [package["name"] for package in packages if "vulns" not in package]
    sys.stdout.write(f"audited {len(packages) - len(unknown)} packages ({source})\n")
    if unknown:
        sys.stdout.write(f"not audited, unknown to {source}: {', '.join(unknown)}\n")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
