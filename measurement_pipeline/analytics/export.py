"""Export a catalogue to files: series, recordings, data dictionary. Works in batches, for catalogues of any size.

Each file is written under a temporary name and renamed when it is complete.
"""

import csv
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

from measurement_pipeline.domain.csv_cells import csv_cell
from measurement_pipeline.postgres import analytics
from measurement_pipeline.postgres.analytics import Column
from measurement_pipeline.postgres.database import Connection

VIEWS = ("daily_play_counts", "catalog_play_counts")
DICTIONARY = "data_dictionary.csv"

_Batch = Sequence[tuple[Any, ...]]
_Write = Callable[[_Batch], None]


class ParquetMissingError(RuntimeError):
    """pyarrow is not installed."""


def export_catalog(connection: Connection, catalog: UUID, *, directory: Path, file_format: str) -> dict[Path, int]:
    """Write the files as `file_format` (parquet or csv) and return the rows of each. Raises `ParquetMissingError`."""
    opens = {"csv": _open_csv, "parquet": _open_parquet}[file_format]
    directory.mkdir(parents=True, exist_ok=True)
    written = {}
    # One snapshot, so that series and recordings agree.
    with analytics.single_snapshot(connection):
        for view in VIEWS:
            path = directory / f"{view}.{file_format}"
            columns = analytics.columns(connection, view)
            rows = 0
            with _written_atomically(path) as unfinished, opens(unfinished, columns) as write:
                for batch in analytics.stream(connection, view, catalog):
                    write(batch)
                    rows += len(batch)
            written[path] = rows
        path = directory / DICTIONARY
        described = [row for row in analytics.dictionary(connection) if row["view_name"] in VIEWS]
        with _written_atomically(path) as unfinished, _open_csv(unfinished, list(described[0])) as write:
            write([tuple(row.values()) for row in described])
        written[path] = len(described)
    return written


@contextmanager
def _written_atomically(path: Path) -> Iterator[Path]:
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def _open_csv(path: Path, columns: Sequence[Column | str]) -> Iterator[_Write]:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([one if isinstance(one, str) else one.column_name for one in columns])

        def write(batch: _Batch) -> None:
            writer.writerows([csv_cell(value) for value in row] for row in batch)

        yield write


@contextmanager
def _open_parquet(path: Path, columns: Sequence[Column]) -> Iterator[_Write]:
    try:
        # Optional: 40 MB that only parquet needs.
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise ParquetMissingError(
            "parquet needs pyarrow, which is not installed: `pip install pyarrow`, or --format csv"
        ) from error
    types = {
        "text": pa.string(),
        "date": pa.date32(),
        "bigint": pa.int64(),
        "integer": pa.int32(),
        "boolean": pa.bool_(),
        "timestamp with time zone": pa.timestamp("us", tz="UTC"),
        # As text, which every reader accepts.
        "uuid": pa.string(),
    }
    schema = pa.schema(
        [
            pa.field(one.column_name, types[one.type], metadata={"meaning": one.meaning, "unit": one.unit})
            for one in columns
        ]
    )
    as_text = [place for place, one in enumerate(columns) if one.type == "uuid"]

    with parquet.ParquetWriter(path, schema, compression="zstd") as writer:

        def write(batch: _Batch) -> None:
            held = list(zip(*batch, strict=True))
            for place in as_text:
                held[place] = tuple(None if value is None else str(value) for value in held[place])
            arrays = [pa.array(values, field.type) for values, field in zip(held, schema, strict=True)]
            writer.write_batch(pa.record_batch(arrays, schema=schema))

        yield write
