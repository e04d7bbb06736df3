"""Every environment variable of the project, its default and its meaning, in one place.

Each process reads them once, at its start, and passes them on as plain values; nothing else reads the environment. A missing or
malformed variable is named before anything is spent.
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

# One call in 17 minutes: anything slower is a typing error.
_SLOWEST_RATE = 0.001

# Human-readable description of the expected format, used in error messages instead of the regex.
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

# The same for pydantic's own error types.
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
    """The environment is invalid. The message names each variable and the expected value."""


class Settings(BaseModel):
    """The settings of one deployment. All its processes must read the same values."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=False)

    database_url: str | None = Field(
        None,
        alias="DATABASE_URL",
        description="URL of the measurement database. Default: an embedded server.",
    )
    dagster_postgres_url: str | None = Field(
        None,
        alias="DAGSTER_POSTGRES_URL",
        description="URL of Dagster's own database. Default: database `dagster` on the same server.",
    )
    dagster_home: str | None = Field(
        None, alias="DAGSTER_HOME", description="Directory of Dagster's instance. Default: below `.local/`."
    )
    deployment_kind: Kind | None = Field(
        None,
        alias="DEPLOYMENT_KIND",
        description="`live` or `sandbox`. If not set: `live` if the base URLs of Songstats and Stripe are the real ones.",
    )

    songstats_api_key: SecretStr | None = Field(
        None, alias="SONGSTATS_API_KEY", description="Key of the Songstats Enterprise API."
    )
    songstats_base_url: str = Field(
        REAL_SONGSTATS,
        alias="SONGSTATS_BASE_URL",
        pattern=_BASE_ADDRESS,
        description="Base URL of the Songstats API; `/enterprise/v1/…` is added.",
    )
    songstats_sources: str = Field(
        "spotify",
        alias="SONGSTATS_SOURCES",
        pattern=r"^[a-z_]+(,[a-z_]+)*$",
        description=(
            "Platforms to request, comma-separated, including spotify. A longer list costs no extra hit and is stored with the "
            "response."
        ),
    )
    songstats_artist_id: str | None = Field(
        None, alias="SONGSTATS_ARTIST_ID", description="`songstats_artist_id` for keys of type artist or label."
    )
    songstats_hit_limit: int = Field(
        1000, alias="SONGSTATS_HIT_LIMIT", ge=0, description="Hits that the plan allows in any 30 days."
    )
    songstats_hit_reserve: int = Field(
        100, alias="SONGSTATS_HIT_RESERVE", ge=0, description="Hits of that limit that the pipeline never spends."
    )
    songstats_requests_per_second: float = Field(
        5.0,
        alias="SONGSTATS_REQUESTS_PER_SECOND",
        ge=0,
        le=1000,
        allow_inf_nan=False,
        description="Rate limit of the whole deployment. 0: no limit.",
    )
    songstats_concurrency: int = Field(
        20, alias="SONGSTATS_CONCURRENCY", ge=1, le=200, description="Calls that may be in flight at once."
    )
    songstats_timeout_seconds: float = Field(
        50.0, alias="SONGSTATS_TIMEOUT_SECONDS", gt=0, le=600, description="Total time that one call may take."
    )
    songstats_eur_per_hit: float = Field(
        0.0833, alias="SONGSTATS_EUR_PER_HIT", ge=0, allow_inf_nan=False, description="Price of a hit, for reports."
    )
    claim_timeout_seconds: float | None = Field(
        None,
        alias="CLAIM_TIMEOUT_SECONDS",
        gt=0,
        allow_inf_nan=False,
        description="A row without a heartbeat for this long is abandoned. If not set: twice SONGSTATS_TIMEOUT_SECONDS.",
    )
    max_attempts: int = Field(
        5, alias="MAX_ATTEMPTS", ge=1, description="Runs that may try one recording before it is failed as exhausted."
    )

    stripe_secret_key: SecretStr | None = Field(
        None, alias="STRIPE_SECRET_KEY", description="Stripe key; a restricted key is enough."
    )
    stripe_api_base: str = Field(
        REAL_STRIPE, alias="STRIPE_API_BASE", pattern=_BASE_ADDRESS, description="Base URL of the Stripe API."
    )
    checkout_success_url: str = Field(
        "https://stripe.com/",
        alias="CHECKOUT_SUCCESS_URL",
        pattern=r"^https?://",
        description="Page that Checkout opens after a client has saved a card.",
    )
    stripe_free_tier_price_id: str | None = Field(
        None,
        alias="STRIPE_FREE_TIER_PRICE_ID",
        description="Price that Checkout subscribes to, with a trial. Default: none; Checkout only saves a card.",
    )
    stripe_trial_days: int = Field(
        30, alias="STRIPE_TRIAL_DAYS", ge=1, le=730, description="Trial of that subscription, in days."
    )
    backfill_account_id: UUID | None = Field(
        None,
        alias="BACKFILL_ACCOUNT_ID",
        description="Account that pays for recordings that an operator launches and no request wants.",
    )

    apify_token: SecretStr | None = Field(
        None,
        alias="APIFY_TOKEN",
        description="Apify token, for captures of current play counts. Default: none; the deployment makes no captures.",
    )
    apify_base_url: str = Field(
        REAL_APIFY,
        alias="APIFY_BASE_URL",
        pattern=_BASE_ADDRESS,
        description="Base URL of the Apify API; `/v2/…` is added.",
    )
    spotify_client_id: str | None = Field(
        None,
        alias="SPOTIFY_CLIENT_ID",
        description="Client ID of Spotify's Web API, which returns the ISRC of a track. Default: none; no lookups.",
    )
    spotify_client_secret: SecretStr | None = Field(
        None, alias="SPOTIFY_CLIENT_SECRET", description="Secret of that client."
    )
    spotify_api_base: str = Field(
        REAL_SPOTIFY_API, alias="SPOTIFY_API_BASE", pattern=_BASE_ADDRESS, description="Base URL of Spotify's Web API."
    )
    spotify_accounts_base: str = Field(
        REAL_SPOTIFY_ACCOUNTS,
        alias="SPOTIFY_ACCOUNTS_BASE",
        pattern=_BASE_ADDRESS,
        description="Base URL of Spotify's token service.",
    )
    apify_usd_per_album: Decimal = Field(
        Decimal("0.004"),
        alias="APIFY_USD_PER_ALBUM",
        ge=0,
        le=10,
        allow_inf_nan=False,
        description=(
            "Price of one album in US dollars, as the actor's page states it. Estimates and caps use it, and no actor run may "
            "charge more for its albums."
        ),
    )
    snapshot_monthly_cap_usd: Decimal = Field(
        Decimal(25),
        alias="SNAPSHOT_MONTHLY_CAP_USD",
        ge=0,
        allow_inf_nan=False,
        description="Most that an account may spend on captures in a calendar month (UTC), in US dollars.",
    )

    snapshot_deployment_cap_usd: Decimal = Field(
        Decimal(100),
        alias="SNAPSHOT_DEPLOYMENT_CAP_USD",
        ge=0,
        allow_inf_nan=False,
        description="Most that all accounts together may spend on captures in a calendar month (UTC), in US dollars.",
    )

    api_host: str = Field("127.0.0.1", alias="API_HOST", description="Address on which the HTTP API listens.")
    api_port: int = Field(8080, alias="API_PORT", ge=1, le=65_535, description="Port of the HTTP API.")
    api_key_secret: SecretStr | None = Field(
        None,
        alias="API_KEY_SECRET",
        min_length=32,
        description=(
            "Secret that API keys are hashed with, 32 characters or more; required for `api` and `keys create`. A new secret "
            "invalidates every key. Default: a public one in a sandbox, none in a live deployment."
        ),
    )
    api_jwt_issuer: str | None = Field(
        None,
        alias="API_JWT_ISSUER",
        description="`iss` of accepted bearer tokens. Default: none; bearer tokens are rejected.",
    )
    api_jwt_audience: str | None = Field(None, alias="API_JWT_AUDIENCE", description="`aud` of accepted bearer tokens.")
    api_jwks_url: str | None = Field(
        None,
        alias="API_JWKS_URL",
        pattern=r"^https?://[^\s?#@]+$",
        description="URL of the issuer's public keys (JWKS). Either this or API_JWT_SECRET.",
    )
    api_jwt_secret: SecretStr | None = Field(
        None,
        alias="API_JWT_SECRET",
        min_length=32,
        description="Secret shared with the issuer of bearer tokens, 32 characters or more.",
    )
    api_jwt_algorithm: JwtAlgorithm | None = Field(
        None,
        alias="API_JWT_ALGORITHM",
        description="Signature algorithm of bearer tokens. Default: RS256 with API_JWKS_URL, HS256 with API_JWT_SECRET.",
    )
    api_cors_origins: str | None = Field(
        None,
        alias="API_CORS_ORIGINS",
        pattern=r"^https?://[^\s,/*]+(,https?://[^\s,/*]+)*$",
        description="Web origins whose pages may call the API, comma-separated. Default: none.",
    )
    api_requests_per_minute: int = Field(
        600, alias="API_REQUESTS_PER_MINUTE", ge=0, description="HTTP requests of one account per minute. 0: no limit."
    )

    alert_webhook_url: SecretStr | None = Field(
        None,
        alias="ALERT_WEBHOOK_URL",
        description='Webhook that receives one message for each incident, in Slack\'s format (`{"text": …}`). Default: none.',
    )
    callback_secret: SecretStr | None = Field(
        None,
        alias="CALLBACK_SECRET",
        min_length=32,
        description=(
            "Secret that the accounts' callback secrets are derived from, 32 characters or more. A live deployment needs one to "
            "send callbacks; a sandbox has a default."
        ),
    )
    callback_allow_loopback: bool = Field(
        False,
        alias="CALLBACK_ALLOW_LOOPBACK",
        description="Send callbacks to loopback addresses, with http too. Only in a sandbox.",
    )
    silence_alarm_hours: float = Field(
        6.0,
        alias="SILENCE_ALARM_HOURS",
        gt=0,
        allow_inf_nan=False,
        description="Hours without progress, while work is due, after which a health check fails.",
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
            raise SettingsError(_describe(error)) from None

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
            url = urlsplit(address)
            is_valid = url.hostname and (url.port is None or url.port)
        except ValueError:
            is_valid = False
        if not is_valid:
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
        # Anyone who knows a webhook's address may post to it, so it is a secret and not shown.
        if url is not None and not re.fullmatch(r"https?://[^\s/?#@]+(/[^\s#]*)?", url.get_secret_value()):
            raise ValueError("must be http(s)://host/path, without a login")
        return url

    @field_validator("songstats_requests_per_second")
    @classmethod
    def _is_a_rate(cls, rate: float) -> float:
        if 0 < rate < _SLOWEST_RATE:
            raise ValueError(f"must be 0, for no limit, or at least {_SLOWEST_RATE}")
        return rate

    @model_validator(mode="after")
    def _sources_include_spotify(self) -> Self:
        if "spotify" not in self.songstats_sources.split(","):
            raise ValueError("SONGSTATS_SOURCES must name spotify, because its history is bought")
        return self

    @model_validator(mode="after")
    def _spotify_credentials_are_complete(self) -> Self:
        pair = {"SPOTIFY_CLIENT_ID": self.spotify_client_id, "SPOTIFY_CLIENT_SECRET": self.spotify_client_secret}
        missing = [name for name, value in pair.items() if value is None]
        if len(missing) == 1:
            (given,) = set(pair) - set(missing)
            raise ValueError(f"{given} is set and {missing[0]} is not: expected both, or neither")
        return self

    @model_validator(mode="after")
    def _token_settings_are_complete(self) -> Self:
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
        # If a public key were used as a shared secret, anyone could sign tokens with it.
        if self.jwt_algorithm.startswith("HS") != (self.api_jwt_secret is not None):
            raise ValueError(
                f"API_JWT_ALGORITHM {self.jwt_algorithm} does not fit "
                f"{'API_JWKS_URL' if self.api_jwks_url else 'API_JWT_SECRET'}: expected "
                f"{'RS…, PS…, ES… or EdDSA' if self.api_jwks_url else 'HS256, HS384 or HS512'}"
            )
        return self

    @property
    def jwt_algorithm(self) -> str:
        """The signature algorithm of bearer tokens."""
        return self.api_jwt_algorithm or ("RS256" if self.api_jwt_secret is None else "HS256")

    @property
    def claim_timeout(self) -> float:
        """Seconds without a heartbeat after which a claim counts as abandoned."""
        return self.claim_timeout_seconds or 2 * self.songstats_timeout_seconds

    @property
    def hits_allowed(self) -> int:
        """Hits that may be spent in any 30 days."""
        return max(0, self.songstats_hit_limit - self.songstats_hit_reserve)

    @property
    def kind(self) -> Kind:
        """`live` if real money is spent. Raises `SettingsError` if one vendor is real and another a double."""
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
        if kind == "live" and self.callback_allow_loopback:
            raise SettingsError("CALLBACK_ALLOW_LOOPBACK is for a sandbox, and this deployment is live: unset it")
        self._require_captures_of(kind, behind_proxies=kind == "live" and not all(real))
        return kind

    def _require_captures_of(self, kind: Kind, *, behind_proxies: bool) -> None:
        """Require that the vendors of captures, if used, are real exactly if the other vendors are."""
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
    # The host identifies the vendor. Letter case, port, path and a trailing dot do not matter.
    return (urlsplit(address).hostname or "").rstrip(".")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _describe(error: ValidationError) -> str:
    # A value that may be a secret is not shown. A URL may contain a password.
    lines = []
    for problem in error.errors(include_url=False):
        name = str(problem["loc"][0]) if problem["loc"] else ""
        secret = not name or any(word in name for word in ("URL", "KEY", "BASE", "TOKEN", "SECRET"))
        shown = "" if secret else f" (got {str(problem['input'])[:60]!r})"
        expected = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "string_pattern_mismatch" and name in _EXPECTED:
            expected = f"expected {_EXPECTED[name]}"
        elif problem["type"] in _EXPECTED_BY_TYPE:
            expected = f"expected {_EXPECTED_BY_TYPE[problem['type']].format(**problem.get('ctx', {}))}"
        lines.append((f"{name}: " if name else "") + expected + shown)
    return "; ".join(lines)
