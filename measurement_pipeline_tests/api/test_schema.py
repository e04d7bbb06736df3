"""Generated valid and invalid requests get the responses that the OpenAPI description states, and never a 5xx.

`--long` generates more requests.
"""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from measurement_pipeline_tests.api.conftest import RunningApi
from measurement_pipeline_tests.intake.conftest import isrcs

EXAMPLES, EXAMPLES_LONG = 6, 300
ALBUM = "0ETFjACtuP2ADo6LFhL6HN"


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("validity", ["positive", "negative"])
def test_responses_to_valid_and_invalid_requests_match_the_schema(api: RunningApi, long_form: bool, validity: str):
    # Imported here, because it takes seconds and only one of several workers runs this test.
    import schemathesis
    from schemathesis import GenerationMode
    from schemathesis.specs.openapi.checks import positive_data_acceptance

    mode = GenerationMode(validity)
    # A request that matches the schema can still be invalid: a recording without a known album, a cursor of no page.
    excluded = [positive_data_acceptance]
    client = api.client()
    catalog = api.table.catalogue(isrcs(3), account=client.account)
    api.table.measured(isrcs(1)[0], 5)
    api.table.sql(
        "insert into song_identifiers (song, platform, identifier_type, value) values (%s, 'spotify', 'album_id', %s)",
        isrcs(1)[0],
        ALBUM,
    )
    job = client.submit({"catalog_id": str(catalog)}).json()["id"]
    known = {"job_id": job, "track": isrcs(1)[0], "album": ALBUM, "catalog_id": str(catalog)}
    schema = schemathesis.openapi.from_url(f"{api.url}/openapi.json")
    operations = [result.ok() for result in schema.get_all_operations()]
    assert len(operations) == 10
    for operation in operations:
        if mode is GenerationMode.NEGATIVE and operation.path in ("/healthz", "/readyz"):
            continue  # no parameter that could be invalid

        @settings(
            max_examples=EXAMPLES_LONG if long_form else EXAMPLES,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode), use_known_ids=st.booleans())
        def response_matches_schema(case: schemathesis.Case, use_known_ids: bool) -> None:
            if use_known_ids and mode is GenerationMode.POSITIVE:
                case.path_parameters.update({name: known[name] for name in case.path_parameters if name in known})
            case.call_and_validate(headers={"x-api-key": client.key}, excluded_checks=excluded)

        response_matches_schema()
