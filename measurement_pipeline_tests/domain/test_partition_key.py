"""Names of partitions for people."""

from uuid import UUID

import pytest

from measurement_pipeline.domain import partition_key

ID = UUID("3f2a9c1e-0000-4000-8000-000000000001")


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("Sample catalogue", "Sample catalogue"),
        ("Björk & Friends (live)", "Björk & Friends (live)"),
        # Characters with a meaning in Dagster's partition selection, or that it rejects.
        ('one, "two" [three...four]\n*', "one two three...four"),
        ("x" * 100, "x" * 60),
        ("\u0000 ? ", ""),
    ],
)
def test_a_catalogues_partition_has_its_name_account_and_id(name: str, shown: str):
    key = partition_key.catalog_partition_key(ID, name=name, account=ID, account_name="Studio")
    assert key == " ".join(filter(None, [shown.replace("...", " "), "Studio", "3f2a9c1e"]))


def test_an_account_without_a_name_is_identified_by_its_id():
    assert partition_key.catalog_partition_key(ID, name="A", account=ID, account_name=None) == "A 3f2a9c1e 3f2a9c1e"


def test_a_captures_partition_has_its_albums_day_and_id():
    key = partition_key.capture_partition_key(ID, what="Abbey Road", albums=3, monthly=True, day="2026-11-30")
    assert key == "Abbey Road and 2 more monthly 2026-11-30 3f2a9c1e"
    key = partition_key.capture_partition_key(ID, what="Abbey Road", albums=1, monthly=False, day="2026-11-30")
    assert key == "Abbey Road 2026-11-30 3f2a9c1e"
