"""The examples of the pages about the HTTP API are executed unchanged, and the table of errors is complete."""

import json
import re
import subprocess
from pathlib import Path

import httpx

from measurement_pipeline.api.openapi import STATUS_DESCRIPTIONS
from measurement_pipeline_tests.api.conftest import RunningApi
from measurement_pipeline_tests.intake.conftest import isrcs

DOCS = Path(__file__).parents[2] / "docs"
HOW_TO = (DOCS / "how-to" / "use-the-http-api.md").read_text(encoding="utf-8")
TUTORIAL = (DOCS / "tutorials" / "first-job.md").read_text(encoding="utf-8")


def examples(page: str) -> list[str]:
    return [block for block in re.findall(r"```sh\n(.*?)```", page, re.DOTALL) if "curl" in block]


def run(example: str, api: RunningApi, *, key: str, catalog: str = "") -> subprocess.CompletedProcess[str]:
    """Run an example unchanged, except that an error response ends it."""
    strict = example.replace("curl -sS", "curl -sS --fail-with-body --write-out '\\n'")
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", strict],
        env={"PATH": "/usr/bin:/bin", "API": api.url, "KEY": key, "CATALOG": catalog},
        capture_output=True,
        text=True,
        check=False,
    )


def succeed(commands: list[str], api: RunningApi, *, key: str, catalog: str = "") -> int:
    """Run examples that succeed; the number of JSON answers."""
    calls = 0
    for example in commands:
        done = run(example, api, key=key, catalog=catalog)
        assert done.returncode == 0, (example, done.stdout, done.stderr)
        for line in done.stdout.splitlines():
            if line.startswith("{"):
                calls += 1
                assert json.loads(line)["status"] == "success", line
    return calls


def have_measured(api: RunningApi, isrc: str) -> None:
    api.table.sql("insert into songs (isrc) values (%s)", isrc)
    api.table.measured(isrc, 5, source="import")
    api.table.sql(
        "insert into song_identifiers (song, platform, identifier_type, value)"
        " values (%s, 'spotify', 'album_id', '4MUSeRnhpSfkMqREFQ36mC')",
        isrc,
    )


def test_every_example_of_the_how_to_works(api: RunningApi):
    client = api.client()
    have_measured(api, "GBUM72501895")
    catalog = api.table.catalogue(isrcs(2), account=client.account)
    assert len(examples(HOW_TO)) == 5
    assert succeed(examples(HOW_TO), api, key=client.key, catalog=str(catalog)) == 9
    assert api.table.sql("select state from measurement_jobs order by created_at") == [
        {"state": "accepted"},
        {"state": "withdrawn"},
    ]


def test_every_example_of_the_clients_tutorial_works_and_the_last_one_is_refused(api: RunningApi):
    client = api.client()
    have_measured(api, "AA6Q72400002")
    *steps, refused = examples(TUTORIAL)
    assert succeed(steps, api, key=client.key) == 7
    done = run(refused, api, key=client.key)
    assert done.returncode == 22
    assert json.loads(done.stdout)["code"] == "invalid_request"


def test_the_how_to_lists_every_error_status():
    table = HOW_TO.split("## Handle errors")[1].split("## ")[0]
    named = {int(status) for row in re.findall(r"^\| ([0-9, ]+) \|", table, re.MULTILINE) for status in row.split(",")}
    assert named == set(STATUS_DESCRIPTIONS)


def test_the_swagger_page_loads_nothing_from_other_hosts(api: RunningApi):
    page = httpx.get(f"{api.url}/docs")
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(loaded) == 3
    for address in loaded:
        assert address.startswith("/")
        assert len(httpx.get(api.url + address).content) > 1_000
    assert "https://" not in page.text


def test_every_error_status_has_its_own_example(api: RunningApi):
    described = httpx.get(f"{api.url}/openapi.json").json()
    bodies = {}
    for operation in (one for path in described["paths"].values() for one in path.values()):
        for status, answer in operation["responses"].items():
            if int(status) >= 400:
                body = answer["content"]["application/json"]["example"]
                assert body["status"] == "error"
                assert ("checkoutUrl" in body) == (status == "402")
                bodies[status] = body["error"]
    assert set(bodies) == {str(status) for status in STATUS_DESCRIPTIONS}
    assert len(set(bodies.values())) == len(bodies)
