"""What the items of a run say of albums and their tracks: a pure function from bytes to records."""

from measurement_pipeline.domain.capture import CapturedAlbum


class MalformedItemsError(ValueError):
    """The items are not what the actor is known to give; the message says what they are."""


def read_items(body: bytes) -> tuple[CapturedAlbum, ...]:
    """The albums that were captured, in the order of the items. Raises MalformedItemsError."""
    raise NotImplementedError
