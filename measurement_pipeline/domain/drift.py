"""Compares the form of a vendor's answer with the form of its earlier ones: fields, types, and the names in `source`. Pure.

A field is expected if all of a hundred earlier answers have it. A type has changed if no earlier answer has it at that place.
"""

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

# With fewer earlier answers nothing is known of what the vendor always sends.
MIN_EARLIER_ANSWERS = 20
EARLIER_ANSWERS = 100

# Of a long list, as many entries at each end show its form.
_ENTRIES_READ = 25
_MAX_DEPTH = 12
_NAMES_SHOWN = 5

# Where a field of this name is a text, the text belongs to the form: it names a platform.
_VOCABULARY = "source"

Shape = Mapping[str, AbstractSet[str]]
"""The types at each path, such as `stats[].data.history[].date` → {text}."""


@dataclass(frozen=True, slots=True)
class Drift:
    """How an answer differs from earlier ones. `new` is a warning; the others mean that its figures may be misread."""

    new: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()

    @property
    def is_serious(self) -> bool:
        """Whether calls must stop until a person has looked."""
        return bool(self.missing or self.changed)

    @property
    def reason(self) -> str:
        """Why calls must stop, as text for a person."""
        parts = []
        if self.missing:
            parts.append(f"lacks {_listed(self.missing)}, which every earlier one has")
        if self.changed:
            parts.append(f"has another type in {_listed(self.changed)}")
        return f"the first answer of the day {' and '.join(parts)}"


def shape_of(value: object) -> dict[str, frozenset[str]]:
    """The form of a parsed JSON document."""
    found: dict[str, set[str]] = {}
    for path, kind in _walk(value, "", 0):
        found.setdefault(path, set()).add(kind)
    return {path: frozenset(kinds) for path, kinds in found.items()}


def compare_shapes(earlier: Sequence[Shape], latest: Shape) -> Drift:
    """How `latest` differs from `earlier` answers; no difference if these are too few."""
    if len(earlier) < MIN_EARLIER_ANSWERS:
        return Drift()
    known: dict[str, set[str]] = {}
    for shape in earlier:
        for path, kinds in shape.items():
            known.setdefault(path, set()).update(kinds)
    expected = set(known).intersection(*earlier)
    changed = {
        f"{path} ({', '.join(sorted(latest[path] - known[path]))})"
        for path in latest.keys() & known.keys()
        # An absent value is no type, before or now.
        if latest[path] - known[path] - {"null"} and known[path] != {"null"}
    }
    # A name that is gone says nothing: the platforms that are requested are a setting.
    missing = {path for path in expected - latest.keys() if "name" not in known[path]}
    return Drift(
        new=tuple(sorted(_topmost(latest.keys() - known.keys()))),
        missing=tuple(sorted(_topmost(missing))),
        changed=tuple(sorted(changed)),
    )


def _walk(value: object, path: str, depth: int) -> Iterator[tuple[str, str]]:
    if depth > _MAX_DEPTH:
        return
    if isinstance(value, dict):
        yield path, "object"
        for name, item in value.items():
            below = f"{path}.{name}" if path else str(name)
            yield from _walk(item, below, depth + 1)
            if name == _VOCABULARY and isinstance(item, str):
                yield f"{below}={item.strip().casefold()[:40]}", "name"
    elif isinstance(value, list):
        yield path, "list"
        entries = value if len(value) <= 2 * _ENTRIES_READ else [*value[:_ENTRIES_READ], *value[-_ENTRIES_READ:]]
        for entry in entries:
            yield from _walk(entry, f"{path}[]", depth + 1)
    else:
        yield path, _kind(value)


def _kind(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "number"
    # Songstats writes counts as numbers and as text.
    text = str(value).strip()
    return "number" if text.removeprefix("-").replace(".", "", 1).isdecimal() else "text"


def _topmost(paths: AbstractSet[str]) -> Iterator[str]:
    """Without the paths below another one."""
    for path in paths:
        if not any(path != other and path.startswith((f"{other}.", f"{other}[", f"{other}=")) for other in paths):
            yield path


def _listed(names: Sequence[str]) -> str:
    rest = len(names) - _NAMES_SHOWN
    return ", ".join(names[:_NAMES_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
