"""Send a response complete or broken by a fault. What ASGI cannot express is done on the socket."""

import socket
import struct
from asyncio import Transport
from typing import cast

from starlette.types import Receive, Scope, Send

from measurement_pipeline.sandbox.faults import Fault, FaultResponse


async def deliver(
    answer: FaultResponse, fault: Fault | None, scope: Scope, receive: Receive, send: Send, *, draw: float
) -> None:
    """Sends the response as the fault allows. `draw`, in [0, 1), is the position of a cut at a random place."""
    if fault is None or (fault.sends_a_status and fault.cut is None):
        await _start(answer, send)
        await send({"type": "http.response.body", "body": answer.body})
        return
    if fault.raw is not None:
        _transport(scope).write(fault.raw.encode("latin-1"))
    elif fault.cut is not None:
        await _start(answer, send)
        part = answer.body[: fault.cut_at(len(answer.body), draw)]
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await _end(fault, scope, receive)


async def _start(answer: FaultResponse, send: Send) -> None:
    headers = dict(answer.headers)
    if "transfer-encoding" not in headers:
        headers["content-length"] = str(len(answer.body))
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": answer.status, "headers": raw})


async def _end(fault: Fault, scope: Scope, receive: Receive) -> None:
    """Ends the TCP connection after the bytes written so far, or keeps it open until the client closes it."""
    transport = _transport(scope)
    if fault.reset:
        # A linger time of 0 makes the kernel send RST instead of FIN.
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    elif not fault.hang:
        transport.close()
    # If this returned earlier, the server would answer 500.
    while (await receive())["type"] != "http.disconnect":
        pass


def _transport(scope: Scope) -> Transport:
    return cast("Transport", scope["state"]["transport"])
