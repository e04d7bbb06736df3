"""Normalises ISRCs (ISO 3901), the keys of recordings: removes presentation and guesses nothing.

No check digit exists, the country is not checked, and O/0 or I/1 are never "corrected": a wrong
ISRC is a wrong recording.
"""

import re

_PRESENTATION = re.compile(r"[\s\-\u2010-\u2015]+")
# Letters are matched before upper(), which would turn a ligature or a dotless i into
# letters of an ISRC. An ISRC may itself begin with "ISRC" (Iceland, registrant RC…): the word is
# stripped only where twelve characters follow.
_ISRC = re.compile(r"(?:[Ii][Ss][Rr][Cc]:?)?([A-Za-z]{2}[A-Za-z0-9]{3}[0-9]{7})")


def normalise_isrc(text: str) -> str | None:
    """The twelve characters of an ISRC, or None where `text` is not one.

    Hyphens, spaces, lower case and a leading "ISRC" (with or without a colon) are presentation.
    """
    match = _ISRC.fullmatch(_PRESENTATION.sub("", text))
    return match[1].upper() if match else None
