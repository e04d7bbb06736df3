"""What a track object of the Web API says: a pure function from JSON to a record."""

from measurement_pipeline.domain.capture import Track


def read_track(value: object) -> Track:
    """The track that a JSON object describes. Raises ValueError where it is none."""
    raise NotImplementedError
