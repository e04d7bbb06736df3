"""The vendors' state survives their restart, and belongs to one database."""

from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from datetime import timedelta
from functools import partial
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from apify_client import ApifyClient
from songstats_sdk import SongstatsClient

from measurement_pipeline.sandbox import (
    PLAIN,
    Behaviour,
    KnownRecording,
    MemoryFileError,
    SandboxClient,
    Scenario,
    running,
)
from measurement_pipeline.sandbox.albums import album_id
from measurement_pipeline.sandbox.memory import Memory
from measurement_pipeline_tests.sandbox.clients import request_history, stripe_client
from measurement_pipeline_tests.sandbox.clock import Clock
from measurement_pipeline_tests.sandbox.test_server import process

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

Start = Callable[..., AbstractContextManager[SandboxClient]]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "below" / "doubles.sqlite"


@pytest.fixture
def start(file: Path) -> Start:
    """Start doubles on the test's file. Each start after the first is a restart."""
    return partial(running, behaviour=PLAIN, memory=file)


def usage(sandbox: SandboxClient) -> tuple[int, int]:
    """Songstats' counts for this month: requests, and recordings with data."""
    with SongstatsClient(api_key=sandbox.songstats_key, base_url=sandbox.songstats_url, max_retries=0) as sdk:
        status = sdk.info.status()["status"]
    return status["current_month_total_requests"], status["current_month_total_requested_objects"]


def test_the_months_counts_and_known_recordings_survive_a_restart(start: Start) -> None:
    later = Behaviour(last_day=PLAIN.last_day, roles={"AA6Q72500001": Scenario.LATER}, absent=0)
    with start(behaviour=later) as sandbox:
        assert request_history(sandbox, "AA6Q72500001").status_code == 404
        assert request_history(sandbox, "AA6Q72500002").status_code == 200
        assert usage(sandbox) == (2, 1)
    with start(behaviour=later) as sandbox:
        assert usage(sandbox) == (2, 1)
        assert request_history(sandbox, "AA6Q72500001").status_code == 200
        assert usage(sandbox) == (3, 2)


def test_a_request_with_a_lost_response_is_counted(start: Start) -> None:
    with start() as sandbox:
        sandbox.faults("/enterprise/", close=True, count=1)
        with pytest.raises(httpx.RemoteProtocolError):
            request_history(sandbox, "AA6Q72500002")
    with start() as sandbox:
        assert usage(sandbox) == (1, 1)


def test_responses_before_sigkill_are_remembered(file: Path, start: Start) -> None:
    account = str(uuid4())
    with process("--plain", "--memory", str(file)) as (started, url):
        with SandboxClient(url, PLAIN) as sandbox:
            for n in range(5):
                request_history(sandbox, f"AA6Q725{n:05d}")
            customer = sandbox.card(account)
        started.kill()
        started.wait()
    with start() as sandbox:
        assert usage(sandbox) == (5, 5)
        assert sandbox.card(account) == customer


def test_customers_cards_and_checkout_sessions_survive_a_restart_on_another_port(start: Start) -> None:
    account = str(uuid4())
    params = {"mode": "setup", "currency": "usd", "success_url": "https://example.com"}
    options = {"idempotency_key": "key"}
    with start() as sandbox, stripe_client(sandbox) as client:
        customer = sandbox.payment_method(account, expires=(2031, 7), default=True)
        first = client.v1.checkout.sessions.create({"customer": customer, **params}, options)
        other = client.v1.customers.create({})
    with start() as sandbox, stripe_client(sandbox) as client:
        (card,) = client.v1.payment_methods.list({"customer": customer, "type": "card"}).data
        assert (card.card.exp_year, card.card.exp_month) == (2031, 7)
        assert client.v1.customers.retrieve(customer).invoice_settings.default_payment_method == card.id
        (row,) = client.v1.customers.search({"query": f"metadata['accountId']:'{account}'"}).data
        assert row.id == customer

        again = client.v1.checkout.sessions.create({"customer": customer, **params}, options)
        assert again.id == first.id
        session = client.v1.checkout.sessions.retrieve(first.id)
        assert session.url == f"{sandbox.stripe_url}/checkout/{first.id}"
        assert httpx.post(session.url).status_code == 303
        assert len(client.v1.payment_methods.list({"customer": customer, "type": "card"}).data) == 2

        assert client.v1.customers.create({}).id not in {customer, other.id}, "no id is issued twice"


def test_runs_of_the_actor_and_their_items_survive_a_restart(start: Start, clock: Clock) -> None:
    catalogue = {
        "AA6Q72500001": KnownRecording(artist="Choir", album="One", release_date=clock.now.date() - timedelta(days=99))
    }
    moving = Behaviour(dataset_lag=0, items_without_id=0, tracks_without_count=0)
    wanted = {"urls": [{"url": f"https://open.spotify.com/album/{album_id('Choir', 'One')}"}]}

    def client(sandbox: SandboxClient) -> ApifyClient:
        return ApifyClient(sandbox.apify_token, api_url=sandbox.apify_url, max_retries=0)

    with start(behaviour=moving, catalogue=catalogue, clock=clock) as sandbox:
        run = client(sandbox).actor("beatanalytics/spotify-play-count-scraper").start(run_input=wanted)
        clock.advance(seconds=60)
        items = client(sandbox).dataset(run.default_dataset_id).list_items().items
        assert items[0]["tracks"][0]["streamCount"]
    clock.advance(days=40)
    with start(behaviour=moving, catalogue=catalogue, clock=clock) as sandbox:
        result = client(sandbox).run(run.id).get()
        assert result is not None
        assert result.status == "SUCCEEDED"
        assert client(sandbox).dataset(run.default_dataset_id).list_items().items == items
        assert sandbox.actor_usage() == {"runs": 1, "albums": 1}


def test_each_database_has_its_own_vendors(start: Start) -> None:
    with start() as sandbox:
        assert not sandbox.belong_to("one")
        request_history(sandbox, "AA6Q72500001")
        assert not sandbox.belong_to("another")
        assert usage(sandbox) == (0, 0)
    with start() as sandbox:
        assert sandbox.belong_to("one")
        assert usage(sandbox) == (1, 1)


def test_a_restart_without_a_file_starts_from_zero() -> None:
    for _ in range(2):
        with running(behaviour=PLAIN) as sandbox:
            request_history(sandbox, "AA6Q72500001")
            assert usage(sandbox) == (1, 1)


@pytest.mark.parametrize("content", ["no database", None])
def test_an_invalid_file_is_named_with_the_next_step(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "doubles.sqlite"
    if content is None:
        file.mkdir()
    else:
        file.write_text(content * 100)
    with pytest.raises(MemoryFileError, match="delete the file") as refused:
        Memory(file)
    assert str(file) in str(refused.value)


def test_a_table_is_a_mapping_in_the_order_of_insertion(file: Path) -> None:
    with closing(Memory(file)) as memory:
        table = memory.table("kind")
        table["b"] = {"n": 1}
        table["a"] = {"n": 2}
        table["b"] = {"n": 3}
        assert list(table) == ["b", "a"]
        assert table.documents() == [{"n": 3}, {"n": 2}]
        assert (table["b"], table.get("c"), len(table), "a" in table) == ({"n": 3}, None, 2, True)
        del table["b"]
        with pytest.raises(KeyError):
            del table["b"]
        assert [memory.table("numbers").count("x") for _ in range(3)] == [1, 2, 3]
        memory.forget()
        assert len(table) == 0


def write_half(memory: Memory) -> None:
    with memory.transaction():
        memory.table("kind")["a"] = 1
        memory.table("kind")["b"] = 1 / 0


def test_an_exception_undoes_the_writes_of_its_transaction(file: Path) -> None:
    with closing(Memory(file)) as memory:
        table = memory.table("kind")
        with pytest.raises(ZeroDivisionError):
            write_half(memory)
        assert len(table) == 0
        with memory.transaction():
            table["a"] = 1
        assert table["a"] == 1
