"""Words that agree with their figure, wherever a person reads them. Nothing else belongs here."""


def counted(number: float, one: str, several: str | None = None) -> str:
    """`1 recording`, `2,000 recordings`; `several` where an s is not all that changes."""
    return f"{number:,} {one if number == 1 else several or f'{one}s'}"
