"""The sample catalogue: well formed, invented, and consistent with the double's histories."""

import csv
import re
from collections import Counter
from dataclasses import replace
from datetime import date

from measurement_pipeline.sandbox import (
    SAMPLE_CSV,
    Behaviour,
    Scenario,
    running,
    sample_catalogue,
)
from measurement_pipeline_tests.sandbox.clients import request_history, spotify_points


def rows() -> list[dict[str, str]]:
    with SAMPLE_CSV.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_each_row_has_a_unique_valid_invented_isrc_and_a_date() -> None:
    isrcs = [row["isrc"] for row in rows()]

    assert all(re.fullmatch(r"AA6Q7[0-9]{7}", isrc) for isrc in isrcs)
    assert len(set(isrcs)) == len(isrcs) == 200
    for row in rows():
        assert date.fromisoformat(row["release_date"]).year >= 2024
        assert row["title"]
        assert row["artist"]


def test_some_rows_have_no_count_and_some_share_an_album() -> None:
    assert 5 <= sum(row["play_count"] == "" for row in rows()) <= 15
    albums = Counter(row["album"] for row in rows())
    assert [size for _, size in albums.most_common(3)] == [12, 12, 11]


def test_the_sample_has_every_scenario_and_mostly_plain_recordings() -> None:
    roles = Counter(known.role for known in sample_catalogue().values())

    assert set(roles) == set(Scenario)
    assert roles[Scenario.PLAIN] == 195


def test_the_samples_histories_have_its_counts_on_their_day() -> None:
    counted = replace(Behaviour(), last_day=Behaviour().counted_on)
    with running(behaviour=counted, catalogue=sample_catalogue()) as sandbox:
        for row in rows()[12:30]:
            points = spotify_points(request_history(sandbox, row["isrc"]))
            if row["play_count"]:
                assert float(points[-1]["streams_total"]) == float(row["play_count"])
            assert (date.fromisoformat(row["release_date"]) - date.fromisoformat(points[0]["date"])).days == 1
