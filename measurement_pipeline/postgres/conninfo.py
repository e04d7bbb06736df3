"""Parse database addresses with libpq's parser, for the measurement database and Dagster's database.

An address is a URI (`postgresql://…`, also with SQLAlchemy's driver, `postgresql+psycopg2://…`) or libpq's `key=value` form. No
exception contains any part of an address, because it may be part of the password.
"""

import re
from collections.abc import Mapping
from ipaddress import ip_address
from urllib.parse import quote, urlencode

import psycopg
from psycopg.conninfo import conninfo_to_dict

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_OURS = re.compile(r"postgres(?:ql)?(?:\+psycopg2?)?://")
_HOST_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_.])?")
_HIGHEST_PORT = 65_535

_EXPECTED = "expected postgresql://user:password@host:port/database or libpq's key=value form"
_ENCODE = "in a URI, percent-encode reserved characters of user and password (@ as %40, / as %2F, % as %25)"


class AddressError(ValueError):
    """An unusable address. The message gives the reason and contains no part of the address."""


def parse(address: str) -> dict[str, str]:
    """The connection parameters of `address` by libpq keyword, with `dbname`. Raises `AddressError`."""
    if address != address.strip():
        raise AddressError("must not begin or end with whitespace")
    found = _read(address)
    if "service" in found:
        raise AddressError(f"names a service, and service files are not read: {_EXPECTED}")
    if not found.get("dbname"):
        raise AddressError(f"names no database: {_EXPECTED}")
    hosts, ports = found.get("host", "").split(","), found.get("port", "").split(",")
    if not all(map(_is_host, hosts)) or not all(map(_is_port, ports)) or len(ports) not in {1, len(hosts)}:
        raise AddressError(f"has an invalid host or port: {_ENCODE}")
    return found


def uri(parameters: Mapping[str, str], *, scheme: str = "postgresql") -> str:
    """`parameters` as a URI that libpq and SQLAlchemy read the same way: only plain names stay outside the query."""
    rest = dict(parameters)
    user, password = rest.pop("user", None), rest.pop("password", None)
    host, port, database = rest.pop("host", ""), rest.pop("port", ""), rest.pop("dbname", "")
    login = "" if user is None else quote(user, safe="")
    if password is not None:
        login += f":{quote(password, safe='')}"
    where = f"{login}@" if login else ""
    query = {}
    if _HOST_NAME.fullmatch(host) and (not port or port.isdecimal()):
        where += f"{host}:{port}" if port else host
    else:
        query = {key: value for key, value in (("host", host), ("port", port)) if value}
    if quote(database, safe="") != database:
        query["dbname"] = database
        database = ""
    query |= rest
    options = urlencode(query, quote_via=quote, safe="/")
    return f"{scheme}://{where}/{database}" + (f"?{options}" if options else "")


def sqlalchemy_url(address: str) -> str:
    """`address` with the driver of dagster-postgres, psycopg2; SQLAlchemy 2.1 would choose psycopg 3. Raises `AddressError`."""
    return uri(parse(address), scheme="postgresql+psycopg2")


def _read(address: str) -> dict[str, str]:
    scheme = _SCHEME.match(address)
    if scheme:
        if not _OURS.fullmatch(scheme[0]):
            raise AddressError(f"is not the address of a PostgreSQL database: {_EXPECTED}")
        login, at, _ = address[scheme.end() :].partition("@")
        # libpq would read the text after the first @ or / as host or database, and its errors would show part of a password.
        if address.count("@") > 1 or (at and "/" in login):
            raise AddressError(f"cannot be read: {_ENCODE}")
        address = f"postgresql://{address[scheme.end() :]}"
    try:
        return {key: str(value) for key, value in conninfo_to_dict(address).items()}
    except (psycopg.Error, ValueError):
        raise AddressError(f"cannot be read: {_EXPECTED}; {_ENCODE}") from None


def _is_host(host: str) -> bool:
    if host == "" or host.startswith(("/", "@")) or _HOST_NAME.fullmatch(host):
        return True
    try:
        return ip_address(host) is not None
    except ValueError:
        return False


def _is_port(port: str) -> bool:
    return port == "" or (port.isdecimal() and 0 < int(port) <= _HIGHEST_PORT)
