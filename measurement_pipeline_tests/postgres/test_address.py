"""Database addresses are parsed by libpq only, and no part of a password is shown."""

from collections.abc import Callable

import pytest
import sqlalchemy
from hypothesis import given
from hypothesis import strategies as st
from psycopg.conninfo import make_conninfo
from sqlalchemy.dialects.postgresql.psycopg2 import PGDialect_psycopg2

from measurement_pipeline.postgres import address, conninfo
from measurement_pipeline.postgres.conninfo import AddressError, sqlalchemy_url
from measurement_pipeline.postgres.database import DatabaseError, connect
from measurement_pipeline.settings import Settings, SettingsError

# Each password contains both, with special characters between them: neither may be shown.
MARKS = ("Zwordone", "Zwordtwo")
passwords = st.text("@/?#%:[]&='\\ +;,{}!$~\"é", max_size=4).map(lambda text: f"{MARKS[0]}{text}{MARKS[1]}")

READ = {
    "postgresql://u:p#w@h/d": {"user": "u", "password": "p#w", "host": "h", "dbname": "d"},
    "postgresql://u:p%40w@db:5433/d?sslmode=require": {
        "user": "u", "password": "p@w", "host": "db", "port": "5433", "dbname": "d", "sslmode": "require",
    },
    "postgres://u@/d?host=/a/b&port=5432": {"user": "u", "host": "/a/b", "port": "5432", "dbname": "d"},
    "postgresql://u@%2Fvar%2Frun:5433/d": {"user": "u", "host": "/var/run", "port": "5433", "dbname": "d"},
    "postgresql+psycopg2://u@one:1,two:2/d": {"user": "u", "host": "one,two", "port": "1,2", "dbname": "d"},
    "postgresql://u@[::1]:5433/d": {"user": "u", "host": "::1", "port": "5433", "dbname": "d"},
    "postgresql://h/d?options=-csearch_path%3Dx%20-cwork_mem%3D8MB": {
        "host": "h", "dbname": "d", "options": "-csearch_path=x -cwork_mem=8MB",
    },
    "postgresql:///d": {"dbname": "d"},
    "postgresql://h/odd%2Fname%20%25": {"host": "h", "dbname": "odd/name %"},
    "host=h user=u password='a b://c' dbname=d": {"host": "h", "user": "u", "password": "a b://c", "dbname": "d"},
}  # fmt: skip


@pytest.mark.parametrize("text", READ)
def test_both_databases_use_the_parameters_that_libpq_reads(text: str):
    assert conninfo.parse(text) == READ[text]
    assert conninfo.parse(conninfo.uri(READ[text])) == READ[text]
    assert to_psycopg2(sqlalchemy_url(text)) == READ[text]
    assert sqlalchemy_url(sqlalchemy_url(text)) == sqlalchemy_url(text)


def to_psycopg2(url: str) -> dict[str, str]:
    """The parameters that SQLAlchemy passes to psycopg2."""
    _, result = PGDialect_psycopg2().create_connect_args(sqlalchemy.make_url(url))
    return {key: str(value) for key, value in result.items()}


REFUSED = {
    "postgresql://h": "names no database",
    "postgresql://u:%zz@h/d": "cannot be read",
    "nonsense": "cannot be read",
    "mysql://u@h/d": "is not the address of a PostgreSQL database",
    "postgresql://?service=dagster": "names a service",
    "service=dagster dbname=d": "names a service",
    " postgresql://h/d": "whitespace",
    "postgresql://h/d\n": "whitespace",
    "postgresql://u:p@w@h/d": "cannot be read",
    "postgresql://u:1/w@h/d": "cannot be read",
    "postgresql://u:p/d": "invalid host or port",
    "postgresql://a:1,b:2,c/d?port=1,2": "invalid host or port",
}


@pytest.mark.parametrize("text", REFUSED)
@pytest.mark.parametrize("variable", ["DATABASE_URL", "DAGSTER_POSTGRES_URL"])
def test_an_unusable_address_is_rejected_in_one_line_for_either_database(variable: str, text: str):
    with pytest.raises(SettingsError, match=f"{variable}: .*{REFUSED[text]}") as refused:
        Settings.read({variable: text})
    assert len(str(refused.value).splitlines()) == 1


FORMS: dict[str, Callable[[str], str]] = {
    "encoded": lambda password: conninfo.uri({"user": "u", "password": password, "host": "h", "dbname": "d"}),
    "raw": lambda password: f"postgresql://u:{password}@h/d",
    "raw in the query": lambda password: f"postgresql://u@h/d?password={password}",
    "key=value": lambda password: make_conninfo("", user="u", password=password, host="h", dbname="d"),
    "key=value, unquoted": lambda password: f"user=u password={password} host=h dbname=d",
}


@pytest.mark.parametrize("form", FORMS)
@given(password=passwords)
def test_no_part_of_a_password_is_shown(form: str, password: str):
    text = FORMS[form](password)
    try:
        shown = address.describe(text) + address.describe(sqlalchemy_url(text))
        shown += address.describe(address.with_database(text, "other"))
        assert Settings.read({"DATABASE_URL": text}).database_url == text
        assert to_psycopg2(sqlalchemy_url(text)) == conninfo.parse(text)
        if form in {"encoded", "key=value"}:
            assert conninfo.parse(text)["password"] == password
    except AddressError as error:
        assert form not in {"encoded", "key=value"}, "a correctly quoted address is read"
        with pytest.raises(SettingsError) as refused:
            Settings.read({"DATABASE_URL": text})
        shown = f"{error} {refused.value}"
    assert [mark for mark in MARKS if mark in shown] == []


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("postgresql://a@h/d", "postgres://b:p@h:5432/d", True),
        ("postgresql://a@localhost/d", "postgresql+psycopg2://a@127.0.0.1/d", True),
        ("postgresql://a@/d?host=/run/pg", "postgresql://%2Frun%2Fpg/d", True),
        ("postgresql://a@h,i/d", "host=i dbname=d", True),
        ("postgresql://a@h/d", "postgresql://a@h/e", False),
        ("postgresql://a@h/d", "postgresql://a@h:5433/d", False),
        ("postgresql://a@h/d", "postgresql://a@i/d", False),
    ],
)
def test_two_addresses_are_equal_if_server_and_database_are(one: str, other: str, same: bool):
    assert address.is_same_database(one, other) is same


def test_another_database_on_the_same_server_keeps_login_and_options():
    given = "postgresql://u:p@h:1/d?sslmode=require"
    assert address.with_database(given, "dagster") == "postgresql://u:p@h:1/dagster?sslmode=require"


def test_an_address_is_shown_without_its_login():
    assert address.describe("postgresql://u:secret@db.example:1/d") == "d on db.example:1"
    assert address.describe("postgresql://u:secret@one:1,two:2/d") == "d on one:1, two:2"


def test_a_missing_database_is_created_once(database_url, server):
    name = server.create_database()
    url = server.url(name)
    assert address.create_if_absent(url) is False
    server.drop(name)
    assert address.create_if_absent(url) is True
    with connect(url) as connection:
        assert connection.execute("select current_database() as name").fetchone() == {"name": name}
    server.drop(name)


def test_an_unreachable_server_is_not_a_missing_database():
    with pytest.raises(DatabaseError):
        address.create_if_absent("postgresql://u@127.0.0.1:9/d")
