"""Every environment variable of the project, its default and its meaning, in one place.

Read once, by whoever starts a process (`definitions`, the CLI), and handed on as plain values; nothing else reads the
environment. A missing or malformed one is named before anything is spent.
"""

import re
from collections.abc import Mapping
from decimal import Decimal
from ipaddress import ip_address
from typing import Literal, Self
from urllib.parse import urlsplit
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator

from measurement_pipeline.domain.text import is_visible_ascii
from measurement_pipeline.postgres import conninfo

REAL_SONGSTATS = "https://api.songstats.com"
REAL_STRIPE = "https://api.stripe.com"
REAL_APIFY = "https://api.apify.com"
REAL_SPOTIFY_API = "https://api.spotify.com"
REAL_SPOTIFY_ACCOUNTS = "https://accounts.spotify.com"

# A login in the address would end up in logs, and a query or fragment would swallow the path that is added.
_BASE_ADDRESS = r"^https?://[^\s/?#@]+(/[^\s?#@]*)?$"

# One call in a quarter of an hour: anything slower is a slip.
_SLOWEST_PACE = 0.001

# What is told where a pattern does not hold: a regular expression helps nobody.
_VENDOR_ADDRESS = "https://host, with or without a port and a path; no login, no query"
_EXPECTED = {
    "SONGSTATS_BASE_URL": _VENDOR_ADDRESS,
    "SONGSTATS_SOURCES": "names in lower case, separated by commas alone, such as spotify,deezer",
    "STRIPE_API_BASE": _VENDOR_ADDRESS,
    "APIFY_BASE_URL": _VENDOR_ADDRESS,
    "SPOTIFY_API_BASE": _VENDOR_ADDRESS,
    "SPOTIFY_ACCOUNTS_BASE": _VENDOR_ADDRESS,
    "CHECKOUT_SUCCESS_URL": "an address that begins with https:// or http://",
    "API_JWKS_URL": "https://host/path; no login, no query",
    "API_CORS_ORIGINS": "origins such as https://app.example.com, separated by commas alone",
}

# The same for what pydantic finds, by its name for it.
_EXPECTED_BY_TYPE = {
    "int_parsing": "a whole number",
    "float_parsing": "a number",
    "decimal_parsing": "a number",
    "finite_number": "a number that is not infinite",
    "greater_than": "more than {gt:g}",
    "greater_than_equal": "{ge:g} or more",
    "less_than_equal": "{le:g} or less",
    "uuid_parsing": "a UUID",
    "literal_error": "{expected}",
    "too_short": "{min_length} characters or more",
}

Kind = Literal["sandbox", "live"]

JwtAlgorithm = Literal["RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA", "HS256", "HS384", "HS512"]


class SettingsError(ValueError):
    """The environment is not one that the pipeline can run in. The text names each variable and what was expected."""


class Settings(BaseModel):
    """The settings of one deployment; every process of it must read the same ones."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=False)

    database_url: str | None = Field(
        None,
        alias="DATABASE_URL",
        description="Measurement database. Unset: an embedded server.",
    )
    dagster_postgres_url: str | None = Field(
        None,
        alias="DAGSTER_POSTGRES_URL",
        description="Dagster's own storage. Unset: database `dagster` on the same server.",
    )
    dagster_home: str | None = Field(
        None, alias="DAGSTER_HOME", description="Directory of Dagster's instance. Unset: below `.local/`."
    )
    deployment_kind: Kind | None = Field(
        None,
        alias="DEPLOYMENT_KIND",
        description="`live` or `sandbox`. Unset: live where both vendors' base addresses are the real ones.",
    )

    songstats_api_key: SecretStr | None = Field(
        None, alias="SONGSTATS_API_KEY", description="Key of the Songstats Enterprise API."
    )
    songstats_base_url: str = Field(
        REAL_SONGSTATS,
        alias="SONGSTATS_BASE_URL",
        pattern=_BASE_ADDRESS,
        description="Where Songstats is; `/enterprise/v1/…` is added.",
    )
    songstats_sources: str = Field(
        "spotify",
        alias="SONGSTATS_SOURCES",
        pattern=r"^[a-z_]+(,[a-z_]+)*$",
        description=(
            "Platforms to ask for, comma-separated, spotify among them. A longer list rides on the same hit and is "
            "kept with the response."
        ),
    )
    songstats_artist_id: str | None = Field(
        None, alias="SONGSTATS_ARTIST_ID", description="`songstats_artist_id` for keys of type artist or label."
    )
    songstats_hit_limit: int = Field(
        1000, alias="SONGSTATS_HIT_LIMIT", ge=0, description="Hits that the plan allows in any 30 days."
    )
    songstats_hit_reserve: int = Field(
        100, alias="SONGSTATS_HIT_RESERVE", ge=0, description="Hits of those that the pipeline never touches."
    )
    songstats_requests_per_second: float = Field(
        5.0,
        alias="SONGSTATS_REQUESTS_PER_SECOND",
        ge=0,
        le=1000,
        allow_inf_nan=False,
        description="Pace of the whole deployment. 0: no limit.",
    )
    songstats_concurrency: int = Field(
        20, alias="SONGSTATS_CONCURRENCY", ge=1, le=200, description="Calls that may be in the air at once."
    )
    songstats_timeout_seconds: float = Field(
        50.0, alias="SONGSTATS_TIMEOUT_SECONDS", gt=0, le=600, description="How long one call may take, in all."
    )
    songstats_eur_per_hit: float = Field(
        0.0833, alias="SONGSTATS_EUR_PER_HIT", ge=0, allow_inf_nan=False, description="Price of a hit, for reports."
    )
    claim_timeout_seconds: float | None = Field(
        None,
        alias="CLAIM_TIMEOUT_SECONDS",
        gt=0,
        allow_inf_nan=False,
        description="A row whose owner has not beaten so long is abandoned. Unset: twice SONGSTATS_TIMEOUT_SECONDS.",
    )
    max_attempts: int = Field(
        5, alias="MAX_ATTEMPTS", ge=1, description="Runs that may try one recording before it is failed as exhausted."
    )

    stripe_secret_key: SecretStr | None = Field(
        None, alias="STRIPE_SECRET_KEY", description="Stripe key; a restricted one is enough."
    )
    stripe_api_base: str = Field(
        REAL_STRIPE, alias="STRIPE_API_BASE", pattern=_BASE_ADDRESS, description="Where Stripe is."
    )
    checkout_success_url: str = Field(
        "https://stripe.com/",
        alias="CHECKOUT_SUCCESS_URL",
        pattern=r"^https?://",
        description="Where Checkout sends a client who saved a card.",
    )
    stripe_free_tier_price_id: str | None = Field(
        None,
        alias="STRIPE_FREE_TIER_PRICE_ID",
        description="Unset: Checkout saves a card and nothing else. Set: it subscribes to that price with a trial.",
    )
    stripe_trial_days: int = Field(
        30, alias="STRIPE_TRIAL_DAYS", ge=1, le=730, description="Trial of that subscription, in days."
    )
    backfill_account_id: UUID | None = Field(
        None,
        alias="BACKFILL_ACCOUNT_ID",
        description="Account that pays for what an operator launches and no request wants.",
    )

    apify_token: SecretStr | None = Field(
        None,
        alias="APIFY_TOKEN",
        description="Apify token, for captures of current play counts. Unset: there are none.",
    )
    apify_base_url: str = Field(
        REAL_APIFY, alias="APIFY_BASE_URL", pattern=_BASE_ADDRESS, description="Where Apify is; `/v2/…` is added."
    )
    spotify_client_id: str | None = Field(
        None,
        alias="SPOTIFY_CLIENT_ID",
        description="Client of Spotify's Web API, which says whose ISRC a captured track has. Unset: it is not asked.",
    )
    spotify_client_secret: SecretStr | None = Field(
        None, alias="SPOTIFY_CLIENT_SECRET", description="Secret of that client."
    )
    spotify_api_base: str = Field(
        REAL_SPOTIFY_API, alias="SPOTIFY_API_BASE", pattern=_BASE_ADDRESS, description="Where the Web API is."
    )
    spotify_accounts_base: str = Field(
        REAL_SPOTIFY_ACCOUNTS,
        alias="SPOTIFY_ACCOUNTS_BASE",
        pattern=_BASE_ADDRESS,
        description="Where Spotify gives tokens.",
    )
    snapshot_monthly_cap_usd: Decimal = Field(
        Decimal(25),
        alias="SNAPSHOT_MONTHLY_CAP_USD",
        ge=0,
        allow_inf_nan=False,
        description="What an account may spend on captures in a calendar month (UTC), in US dollars.",
    )

    api_host: str = Field("127.0.0.1", alias="API_HOST", description="Where the HTTP API listens.")
    api_port: int = Field(8080, alias="API_PORT", ge=1, le=65_535, description="On which port.")
    api_key_secret: SecretStr | None = Field(
        None,
        alias="API_KEY_SECRET",
        min_length=32,
        description=(
            "Under which digests of API keys are made, 32 characters or more; needed for `api` and `keys create`. A new one "
            "makes every key void. Unset: the sandbox has one that everybody knows, a live deployment none."
        ),
    )
    api_jwt_issuer: str | None = Field(
        None, alias="API_JWT_ISSUER", description="`iss` of the bearer tokens that are taken. Unset: none are."
    )
    api_jwt_audience: str | None = Field(None, alias="API_JWT_AUDIENCE", description="Their `aud`.")
    api_jwks_url: str | None = Field(
        None,
        alias="API_JWKS_URL",
        pattern=r"^https?://[^\s?#@]+$",
        description="Where their issuer lists its public keys. Either this or API_JWT_SECRET.",
    )
    api_jwt_secret: SecretStr | None = Field(
        None, alias="API_JWT_SECRET", min_length=32, description="Shared with their issuer, 32 characters or more."
    )
    api_jwt_algorithm: JwtAlgorithm | None = Field(
        None,
        alias="API_JWT_ALGORITHM",
        description="The one by which they are signed. Unset: RS256 with API_JWKS_URL, HS256 with API_JWT_SECRET.",
    )
    api_cors_origins: str | None = Field(
        None,
        alias="API_CORS_ORIGINS",
        pattern=r"^https?://[^\s,/*]+(,https?://[^\s,/*]+)*$",
        description="Web origins whose pages may call the API, comma-separated. Unset: none.",
    )
    api_requests_per_minute: int = Field(
        600, alias="API_REQUESTS_PER_MINUTE", ge=0, description="Of one account over HTTP. 0: no limit."
    )

    alert_webhook_url: SecretStr | None = Field(
        None,
        alias="ALERT_WEBHOOK_URL",
        description='Where incidents are told, one message each, as Slack takes it (`{"text": …}`). Unset: nowhere but the UI.',
    )
    silence_alarm_hours: float = Field(
        6.0,
        alias="SILENCE_ALARM_HOURS",
        gt=0,
        allow_inf_nan=False,
        description="Recordings are due and none was settled for so many hours: that is an alarm.",
    )

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Self:
        """The settings in `environment`; an empty variable counts as unset. Raises `SettingsError`."""
        given = {
            field.alias: environment[field.alias]
            for field in cls.model_fields.values()
            if field.alias and environment.get(field.alias)
        }
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            raise SettingsError(_in_words(error)) from None

    @field_validator(
        "songstats_api_key", "stripe_secret_key", "apify_token", "spotify_client_id", "spotify_client_secret"
    )
    @classmethod
    def _fits_a_header(cls, key: SecretStr | str | None) -> SecretStr | str | None:
        text = key.get_secret_value() if isinstance(key, SecretStr) else key
        if text is not None and not is_visible_ascii(text):
            raise ValueError("must be printable ASCII without spaces, as an HTTP header takes it")
        return key

    @field_validator(
        "songstats_base_url", "stripe_api_base", "apify_base_url", "spotify_api_base", "spotify_accounts_base"
    )
    @classmethod
    def _has_a_host(cls, address: str) -> str:
        try:
            found = urlsplit(address)
            readable = found.hostname and (found.port is None or found.port)
        except ValueError:
            readable = False
        if not readable:
            raise ValueError("must be http(s)://host, with or without a port and a path")
        return address

    @field_validator("database_url", "dagster_postgres_url")
    @classmethod
    def _is_a_database(cls, address: str | None) -> str | None:
        if address is not None:
            conninfo.parse(address)
        return address

    @field_validator("alert_webhook_url")
    @classmethod
    def _is_an_address(cls, url: SecretStr | None) -> SecretStr | None:
        # Whoever knows a webhook's address may post to it: it is a secret, and not shown.
        if url is not None and not re.fullmatch(r"https?://[^\s/?#@]+(/[^\s#]*)?", url.get_secret_value()):
            raise ValueError("must be http(s)://host/path, without a login")
        return url

    @field_validator("songstats_requests_per_second")
    @classmethod
    def _is_a_pace(cls, pace: float) -> float:
        if 0 < pace < _SLOWEST_PACE:
            raise ValueError(f"must be 0, for no limit, or at least {_SLOWEST_PACE}")
        return pace

    @model_validator(mode="after")
    def _spotify_is_asked_for(self) -> Self:
        if "spotify" not in self.songstats_sources.split(","):
            raise ValueError("SONGSTATS_SOURCES must name spotify: its history is what is bought")
        return self

    @model_validator(mode="after")
    def _spotify_has_both(self) -> Self:
        pair = {"SPOTIFY_CLIENT_ID": self.spotify_client_id, "SPOTIFY_CLIENT_SECRET": self.spotify_client_secret}
        missing = [name for name, value in pair.items() if value is None]
        if len(missing) == 1:
            (given,) = set(pair) - set(missing)
            raise ValueError(f"{given} is set and {missing[0]} is not: expected both, or neither")
        return self

    @model_validator(mode="after")
    def _tokens_are_whole(self) -> Self:
        names = {"API_JWT_ISSUER": self.api_jwt_issuer, "API_JWT_AUDIENCE": self.api_jwt_audience}
        keys = {"API_JWKS_URL": self.api_jwks_url, "API_JWT_SECRET": self.api_jwt_secret}
        given = [name for name, value in (names | keys).items() if value is not None]
        if not given and self.api_jwt_algorithm is None:
            return self
        if None in names.values() or sum(value is not None for value in keys.values()) != 1:
            raise ValueError(
                "bearer tokens need API_JWT_ISSUER, API_JWT_AUDIENCE and exactly one of API_JWKS_URL and API_JWT_SECRET "
                f"(set: {', '.join(given) or 'API_JWT_ALGORITHM alone'})"
            )
        # A public key that is taken for a shared secret is one that everybody can sign with.
        if self.jwt_algorithm.startswith("HS") != (self.api_jwt_secret is not None):
            raise ValueError(
                f"API_JWT_ALGORITHM {self.jwt_algorithm} is not what "
                f"{'API_JWKS_URL' if self.api_jwks_url else 'API_JWT_SECRET'} is for: expected "
                f"{'RS…, PS…, ES… or EdDSA' if self.api_jwks_url else 'HS256, HS384 or HS512'}"
            )
        return self

    @property
    def jwt_algorithm(self) -> str:
        """By which bearer tokens are signed."""
        return self.api_jwt_algorithm or ("RS256" if self.api_jwt_secret is None else "HS256")

    @property
    def claim_timeout(self) -> float:
        """Seconds without a beat after which a claim counts as abandoned."""
        return self.claim_timeout_seconds or 2 * self.songstats_timeout_seconds

    @property
    def hits_allowed(self) -> int:
        """Hits that may be spent in any 30 days."""
        return max(0, self.songstats_hit_limit - self.songstats_hit_reserve)

    @property
    def kind(self) -> Kind:
        """`live` where real money is spent.

        Raises `SettingsError` where one vendor is real and another a double.
        """
        hosts = [_host(self.songstats_base_url), _host(self.stripe_api_base)]
        real = [host == _host(vendor) for host, vendor in zip(hosts, (REAL_SONGSTATS, REAL_STRIPE), strict=True)]
        if any(real) and not all(real):
            raise SettingsError(
                f"SONGSTATS_BASE_URL (host {hosts[0]}) and STRIPE_API_BASE (host {hosts[1]}) must both be the real "
                "vendors or both doubles: a double must never pay for real hits, nor the reverse"
            )
        found: Kind = "live" if all(real) else "sandbox"
        if self.deployment_kind not in {None, found} and (found == "live" or any(map(_is_loopback, hosts))):
            raise SettingsError(
                f"DEPLOYMENT_KIND is {self.deployment_kind}, but the vendors' base addresses are {found} ones"
            )
        kind = self.deployment_kind or found
        self._require_captures_of(kind, behind_proxies=kind == "live" and not all(real))
        return kind

    def _require_captures_of(self, kind: Kind, *, behind_proxies: bool) -> None:
        """The vendors of captures, where they are to be asked at all, are real exactly where the others are."""
        vendors: list[tuple[str, str, str]] = []
        if self.apify_token is not None:
            vendors.append(("APIFY_BASE_URL", self.apify_base_url, REAL_APIFY))
        if self.spotify_client_id is not None:
            vendors.append(("SPOTIFY_API_BASE", self.spotify_api_base, REAL_SPOTIFY_API))
            vendors.append(("SPOTIFY_ACCOUNTS_BASE", self.spotify_accounts_base, REAL_SPOTIFY_ACCOUNTS))
        for name, address, real_address in vendors:
            host = _host(address)
            real = host == _host(real_address) or (behind_proxies and not _is_loopback(host))
            if real != (kind == "live"):
                raise SettingsError(
                    f"{name} (host {host}) must be {'the real vendor' if kind == 'live' else 'a double'}, as Songstats and "
                    f"Stripe are in this {kind} deployment: invented counts must never pass for real ones, nor a sandbox "
                    "spend real money"
                )


def _host(address: str) -> str:
    # The host decides who is called, however the address is spelt: letter case, port, path, a dot at the end.
    return (urlsplit(address).hostname or "").rstrip(".")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _in_words(error: ValidationError) -> str:
    # The value itself is left out where it may be a secret: of a URL, a password would be part of it.
    lines = []
    for problem in error.errors(include_url=False):
        name = str(problem["loc"][0]) if problem["loc"] else ""
        secret = not name or any(word in name for word in ("URL", "KEY", "BASE", "TOKEN", "SECRET"))
        shown = "" if secret else f" (got {str(problem['input'])[:60]!r})"
        said = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "string_pattern_mismatch" and name in _EXPECTED:
            said = f"expected {_EXPECTED[name]}"
        elif problem["type"] in _EXPECTED_BY_TYPE:
            said = f"expected {_EXPECTED_BY_TYPE[problem['type']].format(**problem.get('ctx', {}))}"
        lines.append((f"{name}: " if name else "") + said + shown)
    return "; ".join(lines)
