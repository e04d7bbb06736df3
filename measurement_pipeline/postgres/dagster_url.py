"""The URL of Dagster's own storage, in the form that Dagster needs. Imports no driver: each of its processes loads this."""

from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

_SCHEMES = {"postgres", "postgresql", "postgresql+psycopg2"}


def dagster_url(url: str) -> str:
    """`url` with the driver that dagster-postgres speaks, psycopg2; SQLAlchemy 2.1 would take psycopg 3.

    A socket directory in the place of the host (`postgresql://%2Ftmp/…`, libpq's form) is moved to
    `?host=`, which is SQLAlchemy's. Raises ValueError for any other scheme.
    """
    parts = urlsplit(url)
    if parts.scheme not in _SCHEMES:
        raise ValueError(f"expected a URL of {', '.join(sorted(_SCHEMES))}, got {parts.scheme!r}://")
    login, at, host = parts.netloc.rpartition("@")
    query = parts.query
    if host.lower().startswith("%2f"):
        directory, _, port = host.partition(":")
        moved = {"host": unquote(directory)} | ({"port": port} if port else {})
        query = urlencode([*parse_qsl(query), *moved.items()], quote_via=quote, safe="/")
        host = ""
    where = f"{login}{at}{host}{parts.path}"
    return f"postgresql+psycopg2://{where}" + (f"?{query}" if query else "")
