"""Run the doubles on loopback: in this process until a signal, or in a thread beside a test or a demo.

`SandboxClient` is their client.
"""

import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import datetime
from ipaddress import ip_address
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from measurement_pipeline.sandbox.catalogue import KnownRecording
from measurement_pipeline.sandbox.client import SandboxClient
from measurement_pipeline.sandbox.control_app import ControlApp
from measurement_pipeline.sandbox.memory import Memory
from measurement_pipeline.sandbox.scenarios import Behaviour, utc_now

Clock = Callable[[], datetime]


def serve(
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    behaviour: Behaviour | None = None,
    catalogue: Mapping[str, KnownRecording] | None = None,
    memory: Path | None = None,
    on_ready: Callable[[str], None] = lambda _url: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> None:
    """Serves until SIGTERM or SIGINT, or until `should_stop`, asked every second, says so.

    `on_ready` gets the base URL, the same for all vendors, once connections are accepted. `memory` is the file of the vendors'
    state; None: in memory. After a signal the process ends as that signal ends it (KeyboardInterrupt for SIGINT). Raises
    ValueError for a host that is not loopback, OSError if the port is taken, and `MemoryFileError`.
    """
    with _listening(host, port) as listener, closing(Memory(memory)) as remembered:
        server = _server(
            ControlApp(behaviour or Behaviour(), catalogue or {}, lambda: _url(listener), utc_now, remembered)
        )
        threading.Thread(target=_stop_when, args=(server, should_stop), daemon=True).start()
        on_ready(_url(listener))
        server.run(sockets=[listener])


@contextmanager
def running(
    *,
    behaviour: Behaviour | None = None,
    catalogue: Mapping[str, KnownRecording] | None = None,
    port: int = 0,
    clock: Clock = utc_now,
    memory: Path | None = None,
) -> Iterator[SandboxClient]:
    """The doubles in a thread of this process, until the block ends.

    On a free port by default. `memory` is the file of the vendors' state; None: in memory. Raises OSError if the port is taken,
    and `MemoryFileError`.
    """
    behaviour = behaviour or Behaviour()
    with closing(Memory(memory)) as remembered, _listening("127.0.0.1", port) as listener:
        app = ControlApp(behaviour, catalogue or {}, lambda: _url(listener), clock, remembered)
        with _in_thread(_server(app), listener), SandboxClient(_url(listener), behaviour) as sandbox:
            yield sandbox


@contextmanager
def serving(app: ASGIApp) -> Iterator[str]:
    """Serve `app`, which answers with doubles, in a thread of this process on a free port; its base URL."""
    with _listening("127.0.0.1", 0) as listener, _in_thread(_server(app), listener):
        yield _url(listener)


@contextmanager
def _in_thread(server: uvicorn.Server, listener: socket.socket) -> Iterator[None]:
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="sandbox", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join()


class _HttpProtocol(HttpToolsProtocol):
    """uvicorn's protocol, which passes its transport to the application, because ASGI cannot close a connection."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["state"]["transport"] = self.transport


def _server(app: ASGIApp) -> uvicorn.Server:
    return uvicorn.Server(
        uvicorn.Config(
            app,
            http=_HttpProtocol,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            log_level="critical",
            access_log=False,
            # Responses delayed by a fault must not delay the shutdown.
            timeout_graceful_shutdown=1,
        )
    )


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    if host != "localhost" and not ip_address(host).is_loopback:
        raise ValueError(f"the doubles listen on loopback only, not on {host}")
    family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, proto) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(1024)
        yield listener


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _stop_when(server: uvicorn.Server, should_stop: Callable[[], bool]) -> None:
    while not server.should_exit:
        if should_stop():
            server.should_exit = True
        time.sleep(1)
