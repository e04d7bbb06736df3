from collections.abc import Iterator

import pytest

from measurement_pipeline_tests.health.receiver import Receiver, listening


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with listening() as opened:
        yield opened
