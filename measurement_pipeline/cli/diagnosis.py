"""What `doctor` says: lines, and how questions are put so that none keeps another from being answered.

Each group of questions runs in a thread of its own and has so long; what it has said by then stands, and what it has not is a
failure. What is asked is in the rooms `doctor_*`.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from threading import Thread

import click

from measurement_pipeline.cli import failures


class Verdict(StrEnum):
    """`FAIL`: a person has to do something. `warn`: it passes by itself, is not known, or is a choice to know of."""

    OK = "ok"
    WARN = "warn"
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True)
class Line:
    """One answer: of what, how it stands, and, unless it is well, what to do."""

    name: str
    verdict: Verdict
    words: str


Questions = Callable[[], Iterator[Line]]


def ok(name: str, words: str) -> Line:
    """It is well."""
    return Line(name, Verdict.OK, words)


def warn(name: str, words: str) -> Line:
    """Worth knowing."""
    return Line(name, Verdict.WARN, words)


def fail(name: str, words: str) -> Line:
    """A person has to do something."""
    return Line(name, Verdict.FAIL, words)


def ask(groups: Mapping[str, Questions], *, seconds: float) -> Iterator[Line]:
    """Put all groups' questions at once; the answers in the order of the groups.

    All have the same `seconds`. A group that could not go on is told so under its own name.
    """
    asked = [_Group(name, questions) for name, questions in groups.items()]
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


class _Group(Thread):
    """A daemon thread: one that hangs does not keep the command from ending."""

    def __init__(self, name: str, questions: Questions) -> None:
        super().__init__(name=name, daemon=True)
        self.said: list[Line] = []
        self._questions = questions

    def run(self) -> None:
        try:
            for line in self._questions():
                self.said.append(line)
        except click.ClickException as error:
            self.said.append(fail(self.name, error.message))
        except Exception as error:  # noqa: BLE001 - it is told as a failure, and must not keep the others from being told
            foreseen = failures.in_one_line(error)
            self.said.append(fail(self.name, foreseen or f"could not be asked: {type(error).__name__} in this command"))
