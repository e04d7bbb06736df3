"""Load the named statements of a .sql file.

A statement begins at a line `-- name: claim` and ends at the next one. The text between is sent unchanged, so that it can be
pasted into psql (parameters are psycopg's `%(name)s`).
"""

import re
from functools import cache
from importlib import resources
from typing import LiteralString, cast

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


@cache
def statements(module: str) -> dict[str, LiteralString]:
    """The statements of `<module>.sql` beside this file, by name."""
    text = resources.files(__package__).joinpath(f"{module}.sql").read_text(encoding="utf-8")
    parts = _NAME.split(text)[1:]
    found = dict(zip(parts[::2], (part.strip() for part in parts[1::2]), strict=True))
    if len(found) * 2 != len(parts):
        raise ValueError(f"{module}.sql has two statements of one name")
    # The cast is safe: this text ships with the package and is never built from input.
    return cast("dict[str, LiteralString]", found)
