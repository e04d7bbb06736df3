"""The supervisor, with tiny real processes."""

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from measurement_pipeline.local.process_group import is_alive
from measurement_pipeline.local.signals import defer_signals
from measurement_pipeline.local.supervisor import (
    Interrupted,
    RestartPolicy,
    Service,
    ServiceError,
    Supervisor,
    free_port,
    http_ready,
    interruptible,
    log_contains,
    supervised,
)
from measurement_pipeline_tests.faults.waiting import wait_until

UP = log_contains("up")
SLEEPER = "import time; print('up', flush=True); time.sleep(600)"

# Starts a child. On SIGTERM both write their names, the parent after the child.
FAMILY = """
    import os, pathlib, signal, subprocess, sys, time
    name = sys.argv[1]
    class Terminated(BaseException): pass
    def terminate(*_): raise Terminated
    signal.signal(signal.SIGTERM, terminate)
    child = None if name.endswith("child") else subprocess.Popen([sys.executable, *sys.orig_argv[1:-1], name + "-child"])
    try:
        if child:
            while not pathlib.Path(name + "-child").exists(): time.sleep(0.01)
            print(f"{name} {os.getpid()} up", flush=True)
        else:
            pathlib.Path(name).touch()
        time.sleep(600)
    except Terminated:
        if child: child.wait()
        with open("stopped", "a") as stopped: stopped.write(name + "\\n")
"""


def _service(
    name: str, code: str, directory: Path, *arguments: str, ready: Callable[[str], bool] | None = UP
) -> Service:
    command = [sys.executable, "-c", f"import os; os.chdir({str(directory)!r})\n{textwrap.dedent(code)}", *arguments]
    return Service(
        name, command, {"PATH": os.defpath}, log=directory / "logs" / f"{name}.log", ready=ready, ready_seconds=120
    )


def _stopped(directory: Path) -> list[str]:
    return (directory / "stopped").read_text().split()


def _until(supervisor: Supervisor, holds: Callable[[], bool]) -> None:
    """Let the supervisor check its services until `holds` returns True."""

    def check() -> bool:
        supervisor.check()
        return holds()

    wait_until(check)


def test_a_service_is_ready_once_its_log_contains_the_text(tmp_path: Path) -> None:
    with supervised([]) as supervisor:
        logged = supervisor.start(
            _service("one", "import time; time.sleep(0.3); print('up at', 8917); time.sleep(600)", tmp_path)
        )
    assert logged == "up at 8917\n"
    assert (tmp_path / "logs" / "one.log").read_text() == logged


def test_log_lines_from_before_the_start_do_not_make_a_service_ready(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "one.log").write_text("up, once\n")
    with supervised([]) as supervisor:
        assert supervisor.start(_service("one", SLEEPER, tmp_path)) == "up\n"


def test_a_web_service_is_ready_once_it_responds(tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}/"
    code = f"import http.server as h; h.HTTPServer(('127.0.0.1', {port}), h.SimpleHTTPRequestHandler).serve_forever()"
    assert not http_ready(url)("")
    with supervised([_service("web", code, tmp_path, ready=http_ready(url))]):
        assert http_ready(url)("")


def test_the_error_of_a_service_that_fails_to_start_includes_its_last_log_lines(tmp_path: Path) -> None:
    failing = _service("failing", "import sys; sys.exit('no such key')", tmp_path)
    with (
        pytest.raises(ServiceError, match=r"(?s)failing .*status 1 .*no such key"),
        supervised([failing]),
    ):
        pytest.fail("the service was never ready")


def test_a_service_that_is_not_ready_in_time_is_stopped_with_the_earlier_ones(tmp_path: Path) -> None:
    first = _service("first", FAMILY, tmp_path, "first")
    silent = Service(
        "silent",
        [sys.executable, "-c", SLEEPER],
        {},
        log=tmp_path / "silent.log",
        ready=log_contains("never"),
        ready_seconds=0.5,
    )
    with pytest.raises(ServiceError, match=r"silent .*ready .*0.5 s"), supervised([first, silent]):
        pytest.fail("the service was never ready")
    assert _stopped(tmp_path) == ["first-child", "first"]


def test_the_error_names_a_missing_program() -> None:
    with (
        pytest.raises(ServiceError, match="'no-such-program'"),
        supervised([Service("x", ["no-such-program"], {})]),
    ):
        pytest.fail("the program cannot have started")


def test_scripts_of_the_virtual_environment_need_no_activation(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with supervised(
        [Service("dagster", ["dagster", "--version"], {}, log=log, ready=log_contains("dagster, version"))]
    ):
        assert log.exists()


def test_children_are_stopped_too_and_the_latest_service_first(tmp_path: Path) -> None:
    with supervised([_service(name, FAMILY, tmp_path, name) for name in ("first", "second")]):
        pass
    assert _stopped(tmp_path) == ["second-child", "second", "first-child", "first"]


def test_a_service_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    stubborn = """
        import signal
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print(os.getpid(), "up", flush=True)
        signal.pause()
    """
    with supervised([], stop_seconds=0.3) as supervisor:
        group = int(supervisor.start(_service("stubborn", stubborn, tmp_path)).split()[0])
        assert is_alive(group)
    assert not is_alive(group)


def test_a_child_that_survives_its_parent_is_stopped(tmp_path: Path) -> None:
    leaves = (
        f"import os, subprocess, sys; subprocess.Popen([sys.executable, '-c', {SLEEPER!r}]); print(os.getpid(), 'up')"
    )
    with supervised([], restart_policy=RestartPolicy(first_wait_seconds=60)) as supervisor:
        group = int(supervisor.start(_service("leaves", leaves, tmp_path)).split()[0])
        _until(supervisor, lambda: not is_alive(group))


@pytest.mark.parametrize("status", [0, 1])
def test_a_dead_service_is_restarted_after_any_exit_status(tmp_path: Path, status: int) -> None:
    dies_once = f"""
        import pathlib, sys, time
        print("up", flush=True)
        died = pathlib.Path("died")
        if died.exists():
            time.sleep(600)
        died.touch()
        sys.exit({status})
    """
    with supervised(
        [_service("dies", dies_once, tmp_path)], restart_policy=RestartPolicy(first_wait_seconds=0.1)
    ) as supervisor:
        log = tmp_path / "logs" / "dies.log"
        _until(supervisor, lambda: log.read_text() == "up\nup\n")


def test_a_service_that_keeps_dying_ends_the_supervisor_with_its_last_log_lines(tmp_path: Path) -> None:
    def three_deaths(supervisor: Supervisor) -> None:
        _until(supervisor, lambda: False)

    dies = _service("dies", "print('up'); raise SystemExit('wrong key')", tmp_path)
    with (
        supervised([dies], restart_policy=RestartPolicy(max_deaths=2, first_wait_seconds=0.01)) as supervisor,
        pytest.raises(ServiceError, match=r"(?s)dies .*status 1, 3 times.*wrong key"),
    ):
        three_deaths(supervisor)


def test_the_wait_before_a_restart_doubles_up_to_its_maximum() -> None:
    policy = RestartPolicy(first_wait_seconds=1, max_wait_seconds=5)
    assert [policy.wait_seconds(deaths) for deaths in (1, 2, 3, 4, 5)] == [1, 2, 4, 5, 5]


def test_kept_children_survive_a_dead_service_and_stop_with_the_supervisor(tmp_path: Path) -> None:
    family = replace(_service("family", FAMILY, tmp_path, "family"), keeps_children=True)
    with supervised([], restart_policy=RestartPolicy(first_wait_seconds=0.01)) as supervisor:
        first = int(supervisor.start(family).split()[1])
        os.kill(first, signal.SIGKILL)
        _until(supervisor, lambda: supervisor.pid("family") not in {None, first})
        assert is_alive(first)  # its child
        assert not (tmp_path / "stopped").exists()
    assert not is_alive(first)
    assert "family-child" in _stopped(tmp_path)


SUPERVISOR = """
    import sys
    from pathlib import Path
    from measurement_pipeline.local.supervisor import Interrupted, Service, log_contains, supervised
    services = [Service("family", sys.argv[1:], {}, log=Path("family.log"), ready=log_contains("up"))]
    try:
        with supervised(services, stop_seconds=60) as supervisor:
            print(Path("family.log").read_text().split()[1], flush=True)
            supervisor.wait()
            print("waited", flush=True)
    except Interrupted:
        print("interrupted", flush=True)
"""


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL])
def test_no_process_survives_a_supervisor_that_runs_in_the_background(tmp_path: Path, end: signal.Signals) -> None:
    # A shell without job control ignores SIGINT for `command &`.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                textwrap.dedent(SUPERVISOR),
                sys.executable,
                "-c",
                textwrap.dedent(FAMILY),
                "family",
            ],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            text=True,
        )
    finally:
        signal.signal(signal.SIGINT, before)
    assert process.stdout is not None
    group = int(process.stdout.readline())
    process.send_signal(end)
    output, _ = process.communicate(timeout=120)
    # "interrupted" if the signal arrived before `wait`.
    assert output in ({""} if end == signal.SIGKILL else {"waited\n", "interrupted\n"})
    wait_until(lambda: not is_alive(group))
    assert _stopped(tmp_path) == ["family-child", "family"]


def test_children_start_with_default_signal_handlers_even_if_the_parent_ignores_signals(tmp_path: Path) -> None:
    code = """
        import signal
        print([signal.getsignal(number) != signal.SIG_IGN for number in (signal.SIGTERM, signal.SIGINT)], "up")
    """
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with supervised([]) as supervisor:
            assert supervisor.start(_service("one", code, tmp_path)) == "[True, True] up\n"
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_the_first_stop_signal_interrupts_and_later_ones_are_ignored() -> None:
    steps: list[str] = []

    def work() -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
            steps.append("continued")
        finally:
            signal.raise_signal(signal.SIGINT)
            steps.append("stopped")

    with interruptible(), pytest.raises(Interrupted, match="SIGTERM"):
        work()
    assert steps == ["stopped"]


def test_a_stop_signal_is_deferred_until_the_end_of_the_block() -> None:
    steps: list[str] = []

    def work() -> None:
        with defer_signals():
            steps.append("begun")
            signal.raise_signal(signal.SIGTERM)
            steps.append("done")
        steps.append("continued")

    with interruptible(), pytest.raises(Interrupted):
        work()
    assert steps == ["begun", "done"]
