"""One function classifies an error of PostgreSQL by its SQLSTATE."""

import psycopg
import pytest
from psycopg import errors
from psycopg_pool import PoolTimeout

from measurement_pipeline.postgres.errors import ErrorKind, classify, first_line, is_outage, is_undone

TRANSIENT, ROW, DEFECT = ErrorKind.TRANSIENT, ErrorKind.ROW, ErrorKind.DEFECT

KINDS = {
    "08006": TRANSIENT,
    "08P01": TRANSIENT,
    "25006": TRANSIENT,
    "25P03": TRANSIENT,
    "40001": TRANSIENT,
    "40P01": TRANSIENT,
    "53100": TRANSIENT,
    "53300": TRANSIENT,
    "55006": TRANSIENT,
    "55P03": TRANSIENT,
    "57014": TRANSIENT,
    "57P01": TRANSIENT,
    "57P03": TRANSIENT,
    "58030": TRANSIENT,
    "22001": ROW,
    "22P05": ROW,
    "23503": ROW,
    "23514": ROW,
    "44000": ROW,
    "54000": ROW,
    "P0001": ROW,
    "0A000": DEFECT,
    "25P02": DEFECT,
    "28P01": DEFECT,
    "3D000": DEFECT,
    "42501": DEFECT,
    "42601": DEFECT,
    "42P01": DEFECT,
    "55000": DEFECT,
    "XX000": DEFECT,
    "XX001": DEFECT,
}


@pytest.mark.parametrize(("sqlstate", "kind"), KINDS.items())
def test_a_sqlstate_decides_between_retry_settlement_and_stop(sqlstate: str, kind: ErrorKind):

    assert classify(_of(sqlstate)) is kind


def test_errors_of_psycopg_itself_are_lost_connections_or_unsendable_values():
    assert classify(psycopg.OperationalError("the connection is closed")) is TRANSIENT
    assert classify(PoolTimeout("no connection in time")) is TRANSIENT
    assert classify(psycopg.DataError("PostgreSQL text fields cannot contain NUL (0x00) bytes")) is ROW
    assert classify(psycopg.ProgrammingError("the query has 1 placeholder")) is DEFECT
    assert classify(ValueError("ours")) is DEFECT


def test_a_deadlock_or_lack_of_memory_is_not_an_outage():
    outages = {state: is_outage(errors.lookup(state)("no")) for state in ("25006", "57P01", "58030", "55P03")}
    assert all(outages.values()), outages
    assert not any(is_outage(errors.lookup(state)("no")) for state in ("40P01", "53200", "57014", "42501", "22001"))
    assert is_outage(psycopg.OperationalError("the connection is lost"))
    assert [state for state in KINDS if is_undone(_of(state))] == ["40001", "40P01"]


def test_an_error_without_a_message_has_a_first_line():
    assert first_line(psycopg.OperationalError("")) == "OperationalError"
    assert first_line(psycopg.OperationalError("one\ntwo")) == "one"


def _of(state: str) -> psycopg.Error:
    error = psycopg.Error("no")
    error.sqlstate = state
    return error
