"""The API on a real port, over the test's own database and doubles, and clients of its accounts."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
import uvicorn

from measurement_pipeline import services
from measurement_pipeline.api import keys
from measurement_pipeline.api.app import create_app
from measurement_pipeline.api.config import ApiConfig
from measurement_pipeline.postgres import api_keys
from measurement_pipeline.postgres.database import connect
from measurement_pipeline.sandbox import SandboxClient
from measurement_pipeline.settings import Settings
from measurement_pipeline_tests.faults.waiting import until
from measurement_pipeline_tests.intake.conftest import Desk
from measurement_pipeline_tests.sandbox.clients import NO_TLS

JOBS = "/api/research/measurement-jobs"


@dataclass
class Client(httpx.Client):
    """One account's client, with a key."""

    url: str
    account: UUID
    key: str = field(repr=False)

    def __post_init__(self) -> None:
        super().__init__(base_url=self.url, headers={"x-api-key": self.key}, timeout=120, verify=NO_TLS)

    def ask(
        self, scope: object, *, source: object = "historical", key: str | None = None, **more: Any
    ) -> httpx.Response:
        headers = {} if key is None else {"Idempotency-Key": key}
        return self.post(JOBS, json={"source": source, "scope": scope, **more}, headers=headers)


@dataclass
class Front:
    """A running API, and who may speak to it."""

    url: str
    desk: ApiConfig
    table: Desk
    sandbox: SandboxClient
    clients: ExitStack

    def client(self, account: UUID | None = None, *, card: bool = True) -> Client:
        account = account or uuid4()
        if card:
            self.sandbox.card(str(account))
        key, prefix = keys.generate_key()
        with connect(self.desk.database_url) as connection:
            api_keys.add(
                connection,
                account=account,
                name="test",
                prefix=prefix,
                digest=keys.hash_key(key, secret=self.desk.key_secret),
            )
        return self.clients.enter_context(Client(self.url, account, key))


@contextmanager
def listening(desk: ApiConfig) -> Iterator[str]:
    """The API over `desk`, on a port of its own, until the block ends."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(create_app(desk), log_config=None, access_log=False))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            until(lambda: server.started or not thread.is_alive(), what="the API to listen")
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(120)
            assert not thread.is_alive()


@pytest.fixture
def desk_of_api(database_url: str, sandbox: SandboxClient) -> ApiConfig:
    settings = Settings.read(
        {
            "DATABASE_URL": database_url,
            "SONGSTATS_BASE_URL": sandbox.songstats_url,
            "STRIPE_API_BASE": sandbox.stripe_url,
            "SONGSTATS_API_KEY": sandbox.songstats_key,
            "STRIPE_SECRET_KEY": sandbox.stripe_key,
            "APIFY_BASE_URL": sandbox.songstats_url,
            "APIFY_TOKEN": sandbox.apify_token,
            "API_REQUESTS_PER_MINUTE": "0",
        }
    )
    return replace(services.api_config(settings), answer_within_seconds=60.0, read_within_seconds=60.0)


Open = Callable[..., Front]


@pytest.fixture
def open_front(desk_of_api: ApiConfig, sandbox: SandboxClient) -> Iterator[Open]:
    """Open the API with what the test changes of its desk: `open_front(requests_per_minute=2)`."""
    with ExitStack() as stack:

        def opened(**changed: Any) -> Front:
            desk = replace(desk_of_api, **changed)
            url = stack.enter_context(listening(desk))
            return Front(url, desk, Desk(desk.database_url), sandbox, stack)

        yield opened


@pytest.fixture
def front(open_front: Open) -> Front:
    return open_front()
