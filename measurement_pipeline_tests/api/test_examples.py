"""The examples of docs/api.md are executed unchanged, and its table of errors is complete."""

import json
import re
import subprocess
from pathlib import Path

import httpx

from measurement_pipeline.api.openapi import STATUS_DESCRIPTIONS
from measurement_pipeline_tests.api.conftest import RunningApi
from measurement_pipeline_tests.intake.conftest import isrcs

PAGE = (Path(__file__).parents[2] / "docs" / "api.md").read_text(encoding="utf-8")


def test_every_example_of_the_page_works(api: RunningApi):
    client = api.client()
    api.table.sql("insert into songs (isrc) values ('GBUM72501895')")
    api.table.measured("GBUM72501895", 5, source="import")
    api.table.sql(
        "insert into song_identifiers (song, platform, identifier_type, value)"
        " values ('GBUM72501895', 'spotify', 'album_id', '4MUSeRnhpSfkMqREFQ36mC')"
    )
    catalog = api.table.catalogue(isrcs(2), account=client.account)
    examples = [block for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) if "curl" in block]
    assert len(examples) == 5
    calls = 0
    for example in examples:
        # Unchanged, except that an error response ends it.
        strict = example.replace("curl -sS", "curl -sS --fail-with-body --write-out '\\n'")
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", strict],
            env={"PATH": "/usr/bin:/bin", "API": api.url, "KEY": client.key, "CATALOG": str(catalog)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, (example, done.stdout, done.stderr)
        for line in done.stdout.splitlines():
            if line.startswith("{"):
                calls += 1
                assert json.loads(line)["status"] == "success", line
    assert calls == 9
    assert api.table.sql("select state from measurement_jobs order by created_at") == [
        {"state": "accepted"},
        {"state": "withdrawn"},
    ]


def test_the_page_lists_every_error_status():
    table = PAGE.split("## Errors")[1].split("## ")[0]
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
