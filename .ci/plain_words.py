#!/usr/bin/env python3
"""Reject retired words in code, SQL and docs, and name the standard term for each.

Usage: plain_words.py [PATH ...]; without a path, every tracked text file of the repository. Exit status 1 if a word is found.
The dialect was retired because a new reader had to learn it first; CONTRIBUTING.md says how this project writes.
"""

import re
import subprocess
import sys
from pathlib import Path

RETIRED = {
    r"told(?! at\b)|tells?|telling": "report, state, warn; for a person: alert, notify",
    r"heeds?|heeded": "record, observe",
    r"whoever|whomever|whosoever": "the process that, the account that, anyone who",
    # The system account of that name is no word of ours.
    r"(?<!getpwnam\(\")nobody|somebody": "no one; better: name the subject (no job, no other run, another session)",
    r"thereof|therein|whereof": "of it, in it",
    r"errands?": "batch, lookup batch",
    r"(?<!heart)beats?(?! at\b)|beating|beaten": "heartbeat, renew",
    r"of late": "recent, recently",
    r"(?:is|are|was|were) over": "has ended, has finished, has expired",
    r"in the air": "in flight",
    r"lets? go of": "release",
    r"left alone|leaves? alone": "not changed, skipped",
    r"put right|puts right": "repair, correct",
    r"in words": "describe, as text",
    r"signs? of life": "heartbeat",
    r"to be had": "available",
    r"be it": "whether",
    r"save for": "except",
    r"set aside|sets aside|setting aside": "reserve",
    r"put off|puts off|putting off": "postpone, defer",
    r"put back|puts back": "release, requeue",
    r"tak(?:e|es|en|ing) in|took in": "accept, process",
    r"desk|office": "API configuration, API state",
    r"onlookers?": "read-only viewer",
    r"standing": "status",
}
_WORDS = [
    (re.compile(rf"(?<![a-zA-Z]){pattern}(?![a-zA-Z])", re.IGNORECASE), term)
    for pattern, term in ((f"(?:{pattern})", term) for pattern, term in RETIRED.items())
]
_SUFFIXES = {".py", ".sql", ".md", ".toml", ".yaml", ".yml", ".j2"}
_ITSELF = Path(__file__).resolve()
# Names and texts of others that contain a retired word: a view column that was renamed, a message of Dagster, a login.
_QUOTED = (
    "rename column standing",
    "rename column status to standing",
    "attname = 'standing'",
    "after telling it to shut down",
    # The names that the changelog says were renamed.
    "| `in the air` |",
    "| `in_the_air` |",
    "| `left_alone`, `left_alone_because` |",
    "| `put off`, `left alone`, `done before`, `done in part` |",
    "| `failed rows put back`, ",
)


def files(paths: list[str]) -> list[Path]:
    """The tracked text files below `paths`."""
    listed = subprocess.run(["git", "ls-files", *paths], check=True, capture_output=True, text=True).stdout  # noqa: S603, S607
    found = [Path(line) for line in listed.splitlines()]
    return [path for path in found if path.suffix in _SUFFIXES and path.is_file() and path.resolve() != _ITSELF]


def main() -> int:
    """Print each use of a retired word with its file, line and standard term; return the exit status."""
    uses = 0
    for path in files(sys.argv[1:]):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            if any(quoted in line for quoted in _QUOTED):
                continue
            for word, term in _WORDS:
                for match in word.finditer(line.replace("_", " ")):
                    uses += 1
                    print(f"{path}:{number}: {match[0]!r} is retired; use: {term}")  # noqa: T201
    if uses:
        print(f"{uses} uses of retired words")  # noqa: T201
    return 1 if uses else 0


if __name__ == "__main__":
    sys.exit(main())
