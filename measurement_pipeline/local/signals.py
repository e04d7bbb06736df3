"""SIGINT, SIGTERM and SIGHUP as one exception, so that `with` blocks give back what they hold whichever of them comes."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(KeyboardInterrupt):
    """Somebody asked this process to stop; `number` is the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@dataclass(slots=True)
class _SignalState:
    """Of the whole process, as signal handlers are."""

    listening: bool = False
    received: int | None = None
    holds: int = 0


_state = _SignalState()


@contextmanager
def interruptible() -> Iterator[None]:
    """Within it the first stop signal raises `Interrupted`; later ones go unheard while things stop. Nests.

    Handlers are set even where a background shell left SIGINT ignored, and processes started within
    it find all three signals at their defaults: exec resets what is handled, and keeps what is
    ignored. Outside of the main thread it does nothing: signals never come there.
    """
    if _state.listening or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _handle) for number in _SIGNALS}
    _state.listening = True
    try:
        yield
    finally:
        _state.listening, _state.received = False, None
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def defer_signals() -> Iterator[None]:
    """A stop signal waits until the end of this block: for steps that must not be left half done."""
    before = _state.received
    _state.holds += 1
    try:
        yield
    finally:
        _state.holds -= 1
    if before is None and _state.received is not None and not _state.holds:
        raise Interrupted(_state.received)


def _handle(number: int, _: FrameType | None) -> None:
    if _state.received is not None:
        return
    _state.received = number
    if not _state.holds:
        raise Interrupted(number)
