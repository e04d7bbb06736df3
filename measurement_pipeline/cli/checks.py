"""The result of a check of `doctor`, and how checks run: none blocks another, and each cause is reported once.

Each group of checks runs in its own thread with a time limit. If the limit passes, the group's earlier results are kept and
the rest counts as one failure. The checks are in the modules `doctor_*`.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from threading import Thread

import click

from measurement_pipeline.cli import errors


class CheckStatus(StrEnum):
    """`FAIL`: a person must act. `warn`: temporary, unknown, or a deliberate setting."""

    OK = "ok"
    WARN = "warn"
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One line of `doctor`: its name, its status, and a message that ends with the next step unless the status is ok.

    `cause` is the name of another line that reports the cause, if this line shows only an effect.
    """

    name: str
    status: CheckStatus
    message: str
    cause: str = ""


CheckGroup = Callable[[], Iterator[CheckResult]]


def ok(name: str, words: str) -> CheckResult:
    """Return a result that needs no action."""
    return CheckResult(name, CheckStatus.OK, words)


def warn(name: str, words: str) -> CheckResult:
    """Return a result to know about."""
    return CheckResult(name, CheckStatus.WARN, words)


def fail(name: str, words: str, *, cause: str = "") -> CheckResult:
    """Return a result on which a person must act."""
    return CheckResult(name, CheckStatus.FAIL, words, cause)


def report_causes_once(results: Sequence[CheckResult]) -> list[CheckResult]:
    """Return the results with one FAIL per cause.

    A failure that another failing line explains becomes a warning that names that line. Two failures with the same message
    have the same cause, so only the first remains a failure.
    """
    failing = {line.name for line in results if line.status is CheckStatus.FAIL and not line.cause}
    first: dict[str, str] = {}
    reported = []
    for line in results:
        cause = line.cause if line.cause in failing else first.get(line.message, "")
        if line.status is CheckStatus.FAIL and cause and cause != line.name:
            reported.append(CheckResult(line.name, CheckStatus.WARN, f"{line.message} (cause: see {cause})", cause))
            continue
        if line.status is CheckStatus.FAIL:
            first.setdefault(line.message, line.name)
        reported.append(line)
    return reported


def run_checks(groups: Mapping[str, CheckGroup], *, seconds: float) -> Iterator[CheckResult]:
    """Run all groups concurrently, and yield their results in the order of the groups.

    Each group has `seconds`. A group that hangs or fails is reported under its name.
    """
    threads = [_CheckThread(name, checks) for name, checks in groups.items()]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
        is_hanging, results = thread.is_alive(), list(thread.results)
        yield from results
        if is_hanging:
            after = f" after the line {results[-1].name}" if results else ""
            yield fail(thread.name, f"no answer within {seconds:g} s{after}: look for a lock or an overloaded server")


class _CheckThread(Thread):
    """Runs one group of checks. A daemon thread, because one that hangs must not prevent the command from exiting."""

    def __init__(self, name: str, checks: CheckGroup) -> None:
        super().__init__(name=name, daemon=True)
        self.results: list[CheckResult] = []
        self._checks = checks

    def run(self) -> None:
        try:
            for result in self._checks():
                self.results.append(result)
        except click.ClickException as error:
            self.results.append(fail(self.name, error.message))
        except Exception as error:  # noqa: BLE001 - it becomes a FAIL line, and must not stop the other groups
            message = errors.describe_expected_error(error)
            self.results.append(fail(self.name, message or f"not checked: {type(error).__name__} in this command"))
