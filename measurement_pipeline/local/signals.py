"""Turns SIGINT, SIGTERM and SIGHUP into one exception, so that `with` blocks release their resources on each of them."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(KeyboardInterrupt):
    """This process received a stop signal; `number` is the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@dataclass(slots=True)
class _SignalState:
    """Shared by the whole process, because signal handlers are."""

    is_handling: bool = False
    received: int | None = None
    deferrals: int = 0


_state = _SignalState()


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise `Interrupted` on the first stop signal within the block, and ignore later ones during shutdown. Nests.

    Handlers are set even if a background shell left SIGINT ignored. Processes started within the block get all three signals
    at their defaults, because exec resets handled signals and keeps ignored ones. Outside the main thread this does nothing,
    because Python delivers signals only to the main thread.
    """
    if _state.is_handling or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _handle) for number in _SIGNALS}
    _state.is_handling = True
    try:
        yield
    finally:
        _state.is_handling, _state.received = False, None
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def defer_signals() -> Iterator[None]:
    """Delay a stop signal until the end of the block, for steps that must not be left half done."""
    before = _state.received
    _state.deferrals += 1
    try:
        yield
    finally:
        _state.deferrals -= 1
    if before is None and _state.received is not None and not _state.deferrals:
        raise Interrupted(_state.received)


def _handle(number: int, _: FrameType | None) -> None:
    if _state.received is not None:
        return
    _state.received = number
    if not _state.deferrals:
        raise Interrupted(number)
