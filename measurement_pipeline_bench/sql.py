"""Loads the named statements of a benchmark's .sql file, as `measurement_pipeline.postgres.sql` does."""

import re
from importlib import resources
from typing import LiteralString, cast

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


def statements(module: str) -> dict[str, LiteralString]:
    """The statements of `<module>.sql` beside this file, by name."""
    text = resources.files(__package__).joinpath(f"{module}.sql").read_text(encoding="utf-8")
    parts = _NAME.split(text)[1:]
    found = dict(zip(parts[::2], (part.strip() for part in parts[1::2]), strict=True))
    return cast("dict[str, LiteralString]", found)
