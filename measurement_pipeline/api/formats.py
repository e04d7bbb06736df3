"""How a read goes out: as JSON or CSV, whichever is asked for, with an ETag that a client can come back with."""

import csv
import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fastapi import Request
from fastapi.responses import Response
from pydantic import BaseModel

from measurement_pipeline.domain.csv_cells import csv_cell

CSV = "text/csv"
_JSON = ("application/json", "application/*", "*/*")


def prefers_csv(request: Request) -> bool:
    """Whether `Accept` prefers CSV; JSON where it does not say."""
    accepted = _parse_accept(request.headers.get("accept", ""))
    return accepted.get(CSV, 0.0) > max((accepted[kind] for kind in _JSON if kind in accepted), default=0.0)


def build_response(
    request: Request,
    model: BaseModel,
    rows: Iterable[Mapping[str, Any]],
    columns: Sequence[str],
    *,
    next_page: str | None = None,
) -> Response:
    """`made`, or `rows` as CSV; 304 where the client has it. `next_page` goes into `Link`: CSV has no room for it."""
    as_csv = prefers_csv(request)
    body = _csv(rows, columns) if as_csv else model.model_dump_json().encode()
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {"ETag": tag, "Vary": "Accept"}
    if next_page is not None:
        headers["Link"] = f'<{next_page}>; rel="next"'
    sent = ",".join(request.headers.getlist("if-none-match"))
    known = [one.strip().removeprefix("W/") for one in sent.split(",")]
    if tag in known or known == ["*"]:
        return Response(status_code=304, headers=headers)
    kind = f"{CSV}; charset=utf-8; header=present" if as_csv else "application/json"
    return Response(body, headers={**headers, "Content-Type": kind})


def _csv(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> bytes:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(columns)
    for row in rows:
        writer.writerow([csv_cell(row[column]) for column in columns])
    return out.getvalue().encode()


def _parse_accept(header: str) -> dict[str, float]:
    """Media types and how much each is wanted."""
    found = {}
    for part in header.lower().split(","):
        kind, *parameters = (piece.strip() for piece in part.split(";"))
        weight = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                try:
                    weight = float(parameter.removeprefix("q="))
                except ValueError:
                    weight = 0.0
        if kind:
            found[kind] = weight
    return found
