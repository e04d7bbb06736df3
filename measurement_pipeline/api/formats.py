"""Content negotiation for reads: JSON or CSV, with an ETag."""

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
    """Return whether `Accept` prefers CSV. JSON is the default."""
    weights = _parse_accept(request.headers.get("accept", ""))
    return weights.get(CSV, 0.0) > max((weights[kind] for kind in _JSON if kind in weights), default=0.0)


def build_response(
    request: Request,
    model: BaseModel,
    rows: Iterable[Mapping[str, Any]],
    columns: Sequence[str],
    *,
    next_page: str | None = None,
) -> Response:
    """Return `model` as JSON or `rows` as CSV, or 304 if the client has this version.

    `next_page` is sent in the `Link` header, because CSV has no place for it.
    """
    as_csv = prefers_csv(request)
    body = _csv(rows, columns) if as_csv else model.model_dump_json().encode()
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {"ETag": tag, "Vary": "Accept"}
    if next_page is not None:
        headers["Link"] = f'<{next_page}>; rel="next"'
    if_none_match = ",".join(request.headers.getlist("if-none-match"))
    client_tags = [one.strip().removeprefix("W/") for one in if_none_match.split(",")]
    if tag in client_tags or client_tags == ["*"]:
        return Response(status_code=304, headers=headers)
    content_type = f"{CSV}; charset=utf-8; header=present" if as_csv else "application/json"
    return Response(body, headers={**headers, "Content-Type": content_type})


def _csv(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> bytes:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(columns)
    for row in rows:
        writer.writerow([csv_cell(row[column]) for column in columns])
    return out.getvalue().encode()


def _parse_accept(header: str) -> dict[str, float]:
    """Return the weight of each media type in an `Accept` header."""
    weights = {}
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
            weights[kind] = weight
    return weights
