"""State of the vendors as JSON documents in a SQLite file, so that it survives a restart, SIGKILL included.

Documents belong to a deployment, which is the database that uses the doubles. Another database starts with empty vendors.
"""

import json
import sqlite3
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_SCHEMA = """
create table if not exists documents (
    place integer primary key,
    deployment text not null,
    kind text not null,
    id text not null,
    body text not null,
    unique (deployment, kind, id)
)
"""


class MemoryFileError(Exception):
    """The file is not a state file of the doubles, or cannot be opened. The message names it and the next step."""


class Memory:
    """All tables of the doubles. Without a file, they are in memory.

    Every write is committed before the call returns, or at the end of the surrounding `transaction`.
    """

    def __init__(self, file: Path | None = None) -> None:
        try:
            if file is not None:
                file.parent.mkdir(parents=True, exist_ok=True)
            # One thread creates it and another one uses it, never at the same time.
            self._connection = sqlite3.connect(file or ":memory:", isolation_level=None, check_same_thread=False)
            # Survives SIGKILL without waiting for the disk at each request. A power failure may lose the last writes.
            self._connection.execute("pragma journal_mode = wal")
            self._connection.execute("pragma synchronous = normal")
            self._connection.execute(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise MemoryFileError(
                f"{file} cannot be used as state of the doubles ({error}): delete the file to start with empty vendors"
            ) from error
        self._deployment = ""

    def belong_to(self, deployment: str) -> bool:
        """Use the documents of this deployment; return whether there are any."""
        self._deployment = deployment
        found = self._connection.execute("select 1 from documents where deployment = ? limit 1", (deployment,))
        return found.fetchone() is not None

    def forget(self) -> None:
        """Delete all documents of the deployment."""
        self._connection.execute("delete from documents where deployment = ?", (self._deployment,))

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit the writes of the block together; an exception undoes them."""
        self._connection.execute("begin immediate")
        try:
            yield
        except BaseException:
            self._connection.execute("rollback")
            raise
        self._connection.execute("commit")

    def table(self, kind: str) -> "Table":
        """The documents of one kind."""
        return Table(self, kind)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def run(self, statement: str, kind: str, *more: str) -> sqlite3.Cursor:
        """Run a statement on the documents of one kind. Its first two parameters are the deployment and the kind."""
        return self._connection.execute(statement, (self._deployment, kind, *more))


class Table(MutableMapping[str, Any]):
    """The documents of one kind by id, oldest first. Reads return copies; assign a document again to change it."""

    def __init__(self, memory: Memory, kind: str) -> None:
        self._memory = memory
        self._kind = kind

    def __getitem__(self, identity: str) -> Any:
        found = self._run(
            "select body from documents where deployment = ? and kind = ? and id = ?", identity
        ).fetchone()
        if found is None:
            raise KeyError(identity)
        return json.loads(found[0])

    def __setitem__(self, identity: str, document: object) -> None:
        self._run(
            "insert into documents (deployment, kind, id, body) values (?, ?, ?, ?) "
            "on conflict (deployment, kind, id) do update set body = excluded.body",
            identity,
            json.dumps(document),
        )

    def __delitem__(self, identity: str) -> None:
        if not self._run("delete from documents where deployment = ? and kind = ? and id = ?", identity).rowcount:
            raise KeyError(identity)

    def __iter__(self) -> Iterator[str]:
        found = self._run("select id from documents where deployment = ? and kind = ? order by place").fetchall()
        return (identity for (identity,) in found)

    def __len__(self) -> int:
        count: int = self._run("select count(*) from documents where deployment = ? and kind = ?").fetchone()[0]
        return count

    def documents(self) -> list[Any]:
        """All documents, oldest first."""
        found = self._run("select body from documents where deployment = ? and kind = ? order by place").fetchall()
        return [json.loads(body) for (body,) in found]

    def count(self, identity: str) -> int:
        """Increment a document that is a number, and return it, starting at 1."""
        number: int = self.get(identity, 0) + 1
        self[identity] = number
        return number

    def _run(self, statement: str, *more: str) -> sqlite3.Cursor:
        return self._memory.run(statement, self._kind, *more)
