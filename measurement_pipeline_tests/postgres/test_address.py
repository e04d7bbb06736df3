"""Addresses of databases are read, compared and shown without ever showing a password."""

import pytest

from measurement_pipeline.postgres import address
from measurement_pipeline.postgres.database import DatabaseError, connect


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("postgresql://a@h/d", "postgres://b:p@h:5432/d", True),
        ("postgresql://a@localhost/d", "postgresql+psycopg2://a@127.0.0.1/d", True),
        ("postgresql://a@/d?host=/run/pg", "postgresql://%2Frun%2Fpg/d", True),
        ("postgresql://a@h/d", "postgresql://a@h/e", False),
        ("postgresql://a@h/d", "postgresql://a@h:5433/d", False),
        ("postgresql://a@h/d", "postgresql://a@i/d", False),
    ],
)
def test_two_addresses_are_one_where_server_and_database_are(one, other, same):
    assert address.same_database(one, other) is same


def test_another_database_on_the_same_server_keeps_login_and_options():
    given = "postgresql://u:p@h:1/d?sslmode=require"
    assert address.on_same_server(given, "dagster") == "postgresql://u:p@h:1/dagster?sslmode=require"


def test_an_address_is_shown_without_its_login():
    assert address.in_words("postgresql://u:secret@db.example:1/d") == "d on db.example:1"


@pytest.mark.parametrize("url", ["postgresql://h", "postgresql://u:%zz@h/d", "nonsense"])
def test_what_names_no_database_cannot_be_read(url):
    assert not address.is_readable(url)


def test_a_missing_database_is_made_once(database_url, server):
    name = server.make()
    url = server.url(name)
    assert address.create_if_absent(url) is False
    server.drop(name)
    assert address.create_if_absent(url) is True
    with connect(url) as connection:
        assert connection.execute("select current_database() as name").fetchone() == {"name": name}
    server.drop(name)


def test_a_server_that_is_away_is_no_missing_database():
    with pytest.raises(DatabaseError):
        address.create_if_absent("postgresql://u@127.0.0.1:9/d")
