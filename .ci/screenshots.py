#!/usr/bin/env python3
"""Take the pictures of README.md, `docs/images/*.png`, from a real sandbox: start `dev`, buy the sample catalogue, run Chromium.

Usage: screenshots.py. Needs Chromium (`CHROMIUM` names another binary) and about three minutes. The sandbox lives in a temporary
directory and listens on ports of its own, so that it does not meet a running `dev`.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from measurement_pipeline.cli import sample_accounts

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
UI, API, DOUBLES = 3941, 8941, 8942
_START_SECONDS = 300.0
# Of one page: the UI loads its data after the document.
_LOAD_MILLISECONDS = 20_000
_WIDTH, _HEIGHT = 1280, 800
_MOST_BYTES = 200_000
# The most played one of the sample catalogue.
_RECORDING = "AA6Q72500001"

_CLI = Path(sys.executable).with_name("measurement-pipeline")


def main() -> int:
    """Write the pictures; return the exit status."""
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        print("Chromium is not installed. Install it, or name it in CHROMIUM.", file=sys.stderr)  # noqa: T201
        return 1
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as state:
        ports = ["--port", str(UI), "--api-port", str(API), "--sandbox-port", str(DOUBLES)]
        dev = subprocess.Popen([_CLI, "--state", state, "dev", *ports])  # noqa: S603
        try:
            _wait_for(f"http://127.0.0.1:{UI}/server_info", dev)
            _wait_for(f"http://127.0.0.1:{API}/readyz", dev)
            account = sample_accounts.WITH_CARD
            what = ["--account", str(account), "--catalog", sample_accounts.CATALOGS[account]]
            _run(state, "submit", "--source", "current", "--wait", *what)
            _run(state, "submit", "--source", "historical", "--wait", *what)
            report = Path(state) / "report.html"
            _run(state, "report", *what[2:], *what[:2], "--out", str(report))
            _shoot(
                chromium,
                f"http://127.0.0.1:{UI}/assets/songstats_history?view=partitions&partition={_RECORDING}",
                IMAGES / "dagster.png",
            )
            _shoot(chromium, report.as_uri(), IMAGES / "report.png")
        finally:
            dev.send_signal(signal.SIGTERM)
            dev.wait(timeout=120)
    return 0


def _wait_for(url: str, dev: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if dev.poll() is not None:
            raise SystemExit(f"`dev` ended with status {dev.returncode} before {url} answered")
        try:
            with urllib.request.urlopen(url, timeout=5):  # noqa: S310 - an address of this machine
                return
        except OSError:
            time.sleep(1)
    raise SystemExit(f"{url} did not answer within {_START_SECONDS:g} s")


def _run(state: str, *arguments: str) -> None:
    subprocess.run([_CLI, "--state", state, *arguments], check=True)  # noqa: S603


def _shoot(chromium: str, url: str, picture: Path) -> None:
    with tempfile.TemporaryDirectory() as profile:
        command = [
            chromium,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            f"--user-data-dir={profile}",
        ]
        page = [
            f"--window-size={_WIDTH},{_HEIGHT}",
            f"--virtual-time-budget={_LOAD_MILLISECONDS}",
            f"--screenshot={picture}",
            url,
        ]
        subprocess.run([*command, *page], check=True, capture_output=True, timeout=180)  # noqa: S603
    size = picture.stat().st_size
    if size > _MOST_BYTES:
        raise SystemExit(f"{picture} has {size} bytes, more than {_MOST_BYTES}")
    print(f"{picture.relative_to(ROOT)}: {size} bytes")  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
