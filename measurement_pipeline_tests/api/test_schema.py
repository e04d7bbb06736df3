"""The description of the API holds: asked what it allows and what it forbids, the service answers as it says, never with a 5xx.

`--long` asks more of it.
"""

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from measurement_pipeline_tests.api.conftest import Front
from measurement_pipeline_tests.intake.conftest import isrcs

EXAMPLES, EXAMPLES_LONG = 25, 300
ALBUM = "0ETFjACtuP2ADo6LFhL6HN"

# What is of the right shape can still mean nothing here: a recording that is on no known album, a cursor that no page gave.
SHAPE_IS_NOT_ALL = [positive_data_acceptance]


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("mode", list(GenerationMode))
def test_what_the_description_allows_and_forbids_is_answered_as_it_says(
    front: Front, long_form: bool, mode: GenerationMode
):
    client = front.client()
    catalog = front.table.catalogue(isrcs(3), account=client.account)
    front.table.measured(isrcs(1)[0], 5)
    front.table.sql(
        "insert into song_identifiers (song, platform, identifier_type, value) values (%s, 'spotify', 'album_id', %s)",
        isrcs(1)[0],
        ALBUM,
    )
    job = client.ask({"catalog_id": str(catalog)}).json()["id"]
    known = {"job_id": job, "track": isrcs(1)[0], "album": ALBUM, "catalog_id": str(catalog)}
    schema = schemathesis.openapi.from_url(f"{front.url}/openapi.json")
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) == 10
    for operation in operations:
        if mode is GenerationMode.NEGATIVE and operation.path in ("/healthz", "/readyz"):
            continue  # they take nothing that could be wrong

        @settings(
            max_examples=EXAMPLES_LONG if long_form else EXAMPLES,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode), theirs=st.booleans())
        def answers_as_it_says(case: schemathesis.Case, theirs: bool) -> None:
            if theirs and mode is GenerationMode.POSITIVE:
                case.path_parameters.update({name: known[name] for name in case.path_parameters if name in known})
            case.call_and_validate(headers={"x-api-key": client.key}, excluded_checks=SHAPE_IS_NOT_ALL)

        answers_as_it_says()
