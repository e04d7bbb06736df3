"""The API on a real port with the test's own database and vendor doubles, and clients of its accounts."""

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
from measurement_pipeline_tests.faults.waiting import wait_until
from measurement_pipeline_tests.intake.conftest import IntakeBench
from measurement_pipeline_tests.sandbox.clients import NO_TLS

JOBS = "/api/research/measurement-jobs"


@dataclass
class Client(httpx.Client):
    """HTTP client of one account, with an API key."""

    url: str
    account: UUID
    key: str = field(repr=False)

    def __post_init__(self) -> None:
        super().__init__(base_url=self.url, headers={"x-api-key": self.key}, timeout=120, verify=NO_TLS)

    def submit(
        self, scope: object, *, source: object = "historical", key: str | None = None, **fields: Any
    ) -> httpx.Response:
        headers = {} if key is None else {"Idempotency-Key": key}
        return self.post(JOBS, json={"source": source, "scope": scope, **fields}, headers=headers)


@dataclass
class RunningApi:
    """A running API, and clients for it."""

    url: str
    config: ApiConfig
    table: IntakeBench
    sandbox: SandboxClient
    clients: ExitStack

    def client(self, account: UUID | None = None, *, card: bool = True) -> Client:
        account = account or uuid4()
        if card:
            self.sandbox.card(str(account))
        key, prefix = keys.generate_key()
        with connect(self.config.database_url) as connection:
            api_keys.add(
                connection,
                account=account,
                name="test",
                prefix=prefix,
                digest=keys.hash_key(key, secret=self.config.key_secret),
            )
        return self.clients.enter_context(Client(self.url, account, key))


@contextmanager
def serve(config: ApiConfig) -> Iterator[str]:
    """Run the API on a free port until the block ends."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(create_app(config), log_config=None, access_log=False))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            wait_until(lambda: server.started or not thread.is_alive(), what="the API to listen")
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(120)
            assert not thread.is_alive()


@pytest.fixture
def api_config(database_url: str, sandbox: SandboxClient) -> ApiConfig:
    settings = Settings.read(
        {
            "DATABASE_URL": database_url,
            "SONGSTATS_BASE_URL": sandbox.songstats_url,
            "STRIPE_API_BASE": sandbox.stripe_url,
            "SONGSTATS_API_KEY": sandbox.songstats_key,
            "STRIPE_SECRET_KEY": sandbox.stripe_key,
            "APIFY_BASE_URL": sandbox.songstats_url,
            "APIFY_TOKEN": sandbox.apify_token,
            "APIFY_USD_PER_ALBUM": "0.003",
            "API_REQUESTS_PER_MINUTE": "0",
        }
    )
    return replace(services.api_config(settings), answer_within_seconds=60.0, read_within_seconds=60.0)


StartApi = Callable[..., RunningApi]


@pytest.fixture
def start_api(api_config: ApiConfig, sandbox: SandboxClient) -> Iterator[StartApi]:
    """Start the API with changed configuration: `start_api(requests_per_minute=2)`."""
    with ExitStack() as stack:

        def start(**changes: Any) -> RunningApi:
            config = replace(api_config, **changes)
            url = stack.enter_context(serve(config))
            return RunningApi(url, config, IntakeBench(config.database_url), sandbox, stack)

        yield start


@pytest.fixture
def api(start_api: StartApi) -> RunningApi:
    return start_api()
