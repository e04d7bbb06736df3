"""Exponential backoff doubles up to its maximum, and never overflows."""

import pytest

from measurement_pipeline.domain.backoff import exponential_backoff


@pytest.mark.parametrize(
    ("retries", "seconds"), [(-1, 5.0), (0, 5.0), (1, 10.0), (3, 40.0), (8, 900.0), (10_000, 900.0)]
)
def test_the_wait_doubles_with_each_retry_up_to_the_maximum(retries: int, seconds: float):
    assert exponential_backoff(retries, first_seconds=5.0, max_seconds=900.0) == seconds
