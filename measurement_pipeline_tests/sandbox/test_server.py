"""Start and stop of the sandbox: on loopback only, immediately, and together with its parent process."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace

import httpx
import pytest

from measurement_pipeline.sandbox import PLAIN, SandboxClient, running, serve
from measurement_pipeline_tests.faults.waiting import wait_until
from measurement_pipeline_tests.sandbox.clients import NO_TLS, request_history

COMMAND = [sys.executable, "-m", "measurement_pipeline.sandbox"]


@contextlib.contextmanager
def process(*options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The doubles in their own process, with their URL."""
    with subprocess.Popen([*COMMAND, *options], stdout=subprocess.PIPE, text=True) as started:
        try:
            assert started.stdout is not None
            yield started, json.loads(started.stdout.readline())["songstats_url"]
        finally:
            started.kill()


def test_a_process_prints_its_url_and_ends_at_sigterm() -> None:
    with process("--plain", "--points", "5", "--sample") as (started, url):
        sandbox = SandboxClient(url)
        with sandbox:
            points = request_history(sandbox, "AA6Q72400001").json()["stats"][0]["data"]["history"]
            assert len(points) == 5
            assert points[-1]["streams_total"] == 70049
            sandbox.faults("/", delay=3600)
            with pytest.raises(httpx.ReadTimeout):
                httpx.get(f"{url}/enterprise/v1/status", timeout=httpx.Timeout(60, read=0.1))

        started.terminate()
        assert started.wait(120) == -signal.SIGTERM, "a response that is delayed by an hour does not delay the exit"


def test_a_process_ends_with_its_parent() -> None:
    script = (
        "import subprocess, sys\n"
        f"doubles = subprocess.Popen({[*COMMAND, '--with-parent']!r}, stdout=subprocess.PIPE)\n"
        "sys.stdout.write(f'{doubles.pid}\\n' + doubles.stdout.readline().decode())\n"
        "sys.stdout.flush()\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        doubles = int(parent.stdout.readline())
        url = json.loads(parent.stdout.readline())["songstats_url"]
        assert httpx.get(f"{url}/_faults").json() == []
        parent.kill()

    def listens() -> bool:
        try:
            httpx.get(f"{url}/_faults", verify=NO_TLS)
        except httpx.TransportError:
            return False
        return True

    try:
        wait_until(lambda: not listens(), what="the end of the doubles after their parent's")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(doubles, signal.SIGKILL)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.7", "::"])
def test_a_host_outside_loopback_is_rejected(host: str) -> None:
    with pytest.raises(ValueError, match="loopback only"):
        serve(host, 0)


def test_two_concurrent_sandboxes_share_nothing() -> None:
    with running(behaviour=PLAIN) as one, running(behaviour=PLAIN) as other:
        request_history(one, "QZES72012345")

        assert one.songstats_url != other.songstats_url
        assert (one.hits(), other.hits()) == (1, 0)


def test_no_server_listens_after_the_block() -> None:
    with running(behaviour=PLAIN) as sandbox:
        url = sandbox.songstats_url
        assert httpx.get(f"{url}/_faults").status_code == 200

    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/_faults")


def test_latency_is_added_to_vendor_responses_only() -> None:
    with running(behaviour=replace(PLAIN, latency=0.25)) as sandbox:
        before = time.monotonic()
        assert request_history(sandbox, "QZES72012345").status_code == 200
        assert time.monotonic() - before >= 0.25
    with running(behaviour=replace(PLAIN, latency=3600)) as sandbox:
        assert sandbox.hits() == 0


def test_only_the_keys_that_were_set_are_accepted() -> None:
    with running(behaviour=replace(PLAIN, songstats_key="another")) as sandbox:
        assert sandbox.songstats_key == "another"
        assert request_history(sandbox, "QZES72012345").status_code == 200
        assert request_history(SandboxClient(sandbox.songstats_url), "QZES72012345").status_code == 401
