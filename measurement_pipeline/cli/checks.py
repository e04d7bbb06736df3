"""The lines of `doctor`, and how its checks run so that none blocks another and no cause is reported twice.

Each group of checks runs in a thread of its own with a time limit. What it has reported by then stands; the rest is a failure.
The checks are in the modules `doctor_*`.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from threading import Thread

import click

from measurement_pipeline.cli import errors


class CheckStatus(StrEnum):
    """`FAIL`: a person has to do something. `warn`: it passes by itself, is not known, or is a choice to know of."""

    OK = "ok"
    WARN = "warn"
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One check: its name, its result, and, unless that is ok, what to do.

    `cause`: the name of the line that reports the cause, where this line only shows its effect.
    """

    name: str
    status: CheckStatus
    message: str
    cause: str = ""


CheckGroup = Callable[[], Iterator[CheckResult]]


def ok(name: str, words: str) -> CheckResult:
    """It is well."""
    return CheckResult(name, CheckStatus.OK, words)


def warn(name: str, words: str) -> CheckResult:
    """Worth knowing."""
    return CheckResult(name, CheckStatus.WARN, words)


def fail(name: str, words: str, *, cause: str = "") -> CheckResult:
    """A person has to do something."""
    return CheckResult(name, CheckStatus.FAIL, words, cause)


def report_causes_once(lines: Sequence[CheckResult]) -> list[CheckResult]:
    """The lines with one FAIL for each cause.

    A failure that another failing line explains becomes a warning that names that line. Two lines that fail in the same words
    have the same cause: the first one keeps it.
    """
    failing = {line.name for line in lines if line.status is CheckStatus.FAIL and not line.cause}
    first: dict[str, str] = {}
    found = []
    for line in lines:
        cause = line.cause if line.cause in failing else first.get(line.message, "")
        if line.status is CheckStatus.FAIL and cause and cause != line.name:
            found.append(CheckResult(line.name, CheckStatus.WARN, f"{line.message} (cause: see {cause})", cause))
            continue
        if line.status is CheckStatus.FAIL:
            first.setdefault(line.message, line.name)
        found.append(line)
    return found


def run_checks(groups: Mapping[str, CheckGroup], *, seconds: float) -> Iterator[CheckResult]:
    """Run all groups at once; their lines in the order of the groups.

    Each has the same `seconds`. A group that cannot go on is reported under its own name.
    """
    asked = [_CheckThread(name, questions) for name, questions in groups.items()]
    for group in asked:
        group.start()
    deadline = time.monotonic() + seconds
    for group in asked:
        group.join(max(0.0, deadline - time.monotonic()))
        hangs, said = group.is_alive(), list(group.said)
        yield from said
        if hangs:
            after = f" to what comes after the line {said[-1].name}" if said else ""
            yield fail(group.name, f"no answer within {seconds:g} s{after}: a lock, or a server that hangs")


class _CheckThread(Thread):
    """A daemon thread: one that hangs does not keep the command from ending."""

    def __init__(self, name: str, questions: CheckGroup) -> None:
        super().__init__(name=name, daemon=True)
        self.said: list[CheckResult] = []
        self._questions = questions

    def run(self) -> None:
        try:
            for line in self._questions():
                self.said.append(line)
        except click.ClickException as error:
            self.said.append(fail(self.name, error.message))
        except Exception as error:  # noqa: BLE001 - it becomes a FAIL line, and must not stop the other groups
            foreseen = errors.describe_expected_error(error)
            self.said.append(fail(self.name, foreseen or f"could not be asked: {type(error).__name__} in this command"))
