"""Words that agree with their figure, wherever a person reads them. Nothing else belongs here."""


def counted(number: float, one: str, several: str | None = None) -> str:
    """`1 recording`, `2,000 recordings`; `several` where an s is not all that changes."""
    return f"{number:,} {one if number == 1 else several or f'{one}s'}"


def number(value: int | None) -> str:
    """12,345; what is not known is a dash, and no 0."""
    return "–" if value is None else f"{value:,}"
