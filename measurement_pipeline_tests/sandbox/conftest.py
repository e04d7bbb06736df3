"""One plain sandbox for tests without special needs, reset after each."""

from collections.abc import Iterator
from typing import Any

import pytest

from measurement_pipeline.sandbox import PLAIN, SandboxClient, running
from measurement_pipeline_tests.sandbox.clients import stripe_client
from measurement_pipeline_tests.sandbox.clock import Clock


@pytest.fixture(scope="session")
def plain_sandbox() -> Iterator[SandboxClient]:
    with running(behaviour=PLAIN) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(plain_sandbox: SandboxClient) -> Iterator[SandboxClient]:
    yield plain_sandbox
    plain_sandbox.clear_faults()
    plain_sandbox.forget_requests()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def client(sandbox: SandboxClient) -> Iterator[Any]:
    with stripe_client(sandbox) as client:
        yield client
