"""Settings: defaults, errors for malformed values without secrets, and valid combinations."""

import re
from decimal import Decimal
from uuid import UUID

import pytest

from measurement_pipeline import services
from measurement_pipeline.domain.payment import Decision, PaymentVerdict
from measurement_pipeline.postgres.payment_decisions import PaymentDecisions
from measurement_pipeline.services import create_services, load_services
from measurement_pipeline.settings import Settings, SettingsError

ACCOUNT = "3f2b8f0e-6c1e-4f6b-9b0e-1d2c3b4a5f60"
DOUBLES = {"SONGSTATS_BASE_URL": "http://127.0.0.1:9000", "STRIPE_API_BASE": "http://127.0.0.1:9000"}
KEYS = {"SONGSTATS_API_KEY": "songstats-key", "STRIPE_SECRET_KEY": "rk_test_x"}


DEFAULTS = {
    "DATABASE_URL": ("database_url", None),
    "DAGSTER_POSTGRES_URL": ("dagster_postgres_url", None),
    "DAGSTER_HOME": ("dagster_home", None),
    "DEPLOYMENT_KIND": ("deployment_kind", None),
    "SONGSTATS_API_KEY": ("songstats_api_key", None),
    "SONGSTATS_BASE_URL": ("songstats_base_url", "https://api.songstats.com"),
    "SONGSTATS_SOURCES": ("songstats_sources", "spotify"),
    "SONGSTATS_ARTIST_ID": ("songstats_artist_id", None),
    "SONGSTATS_HIT_LIMIT": ("songstats_hit_limit", 1000),
    "SONGSTATS_HIT_RESERVE": ("songstats_hit_reserve", 100),
    "SONGSTATS_REQUESTS_PER_SECOND": ("songstats_requests_per_second", 5.0),
    "SONGSTATS_CONCURRENCY": ("songstats_concurrency", 20),
    "SONGSTATS_TIMEOUT_SECONDS": ("songstats_timeout_seconds", 50.0),
    "SONGSTATS_EUR_PER_HIT": ("songstats_eur_per_hit", 0.0833),
    "CLAIM_TIMEOUT_SECONDS": ("claim_timeout_seconds", None),
    "MAX_ATTEMPTS": ("max_attempts", 5),
    "STRIPE_SECRET_KEY": ("stripe_secret_key", None),
    "STRIPE_API_BASE": ("stripe_api_base", "https://api.stripe.com"),
    "CHECKOUT_SUCCESS_URL": ("checkout_success_url", "https://stripe.com/"),
    "STRIPE_FREE_TIER_PRICE_ID": ("stripe_free_tier_price_id", None),
    "STRIPE_TRIAL_DAYS": ("stripe_trial_days", 30),
    "BACKFILL_ACCOUNT_ID": ("backfill_account_id", None),
    "APIFY_TOKEN": ("apify_token", None),
    "APIFY_BASE_URL": ("apify_base_url", "https://api.apify.com"),
    "SPOTIFY_CLIENT_ID": ("spotify_client_id", None),
    "SPOTIFY_CLIENT_SECRET": ("spotify_client_secret", None),
    "SPOTIFY_API_BASE": ("spotify_api_base", "https://api.spotify.com"),
    "SPOTIFY_ACCOUNTS_BASE": ("spotify_accounts_base", "https://accounts.spotify.com"),
    "APIFY_USD_PER_ALBUM": ("apify_usd_per_album", Decimal("0.004")),
    "SNAPSHOT_DEPLOYMENT_CAP_USD": ("snapshot_deployment_cap_usd", Decimal(100)),
    "SNAPSHOT_MONTHLY_CAP_USD": ("snapshot_monthly_cap_usd", Decimal(25)),
    "API_HOST": ("api_host", "127.0.0.1"),
    "API_PORT": ("api_port", 8080),
    "API_KEY_SECRET": ("api_key_secret", None),
    "API_JWT_ISSUER": ("api_jwt_issuer", None),
    "API_JWT_AUDIENCE": ("api_jwt_audience", None),
    "API_JWKS_URL": ("api_jwks_url", None),
    "API_JWT_SECRET": ("api_jwt_secret", None),
    "API_JWT_ALGORITHM": ("api_jwt_algorithm", None),
    "API_CORS_ORIGINS": ("api_cors_origins", None),
    "API_REQUESTS_PER_MINUTE": ("api_requests_per_minute", 600),
    "ALERT_WEBHOOK_URL": ("alert_webhook_url", None),
    "CALLBACK_SECRET": ("callback_secret", None),
    "CALLBACK_ALLOW_LOOPBACK": ("callback_allow_loopback", False),
    "SILENCE_ALARM_HOURS": ("silence_alarm_hours", 6.0),
}


@pytest.mark.parametrize("variable", DEFAULTS)
@pytest.mark.parametrize("environment", ["unset", "empty"])
def test_an_unset_or_empty_variable_has_its_default(variable: str, environment: str):
    field, default = DEFAULTS[variable]
    settings = Settings.read({variable: ""} if environment == "empty" else {})
    assert getattr(settings, field) == default


def test_the_settings_are_these_and_each_has_a_description():
    assert {field.alias for field in Settings.model_fields.values()} == set(DEFAULTS)
    assert all(field.description for field in Settings.model_fields.values())


def test_derived_settings_follow_the_others():
    settings = Settings.read({})
    assert settings.claim_timeout == 100.0
    assert settings.hits_allowed == 900
    assert settings.kind == "live"
    assert Settings.read({"SONGSTATS_TIMEOUT_SECONDS": "7"}).claim_timeout == 14.0
    assert Settings.read({"CLAIM_TIMEOUT_SECONDS": "3"}).claim_timeout == 3.0
    assert Settings.read({"SONGSTATS_HIT_LIMIT": "5", "SONGSTATS_HIT_RESERVE": "6"}).hits_allowed == 0


def test_set_variables_are_read():
    settings = Settings.read(
        {
            "SONGSTATS_REQUESTS_PER_SECOND": "0",
            "SONGSTATS_SOURCES": "deezer,spotify,apple_music",
            "BACKFILL_ACCOUNT_ID": ACCOUNT.upper(),
            "SONGSTATS_API_KEY": "the key".replace(" ", "-"),
            "UNRELATED": "x",
        }
    )
    assert settings.songstats_requests_per_second == 0
    assert settings.backfill_account_id == UUID(ACCOUNT)
    assert settings.songstats_api_key is not None
    assert settings.songstats_api_key.get_secret_value() == "the-key"
    assert "the-key" not in repr(settings)


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("SONGSTATS_HIT_LIMIT", "many", "a whole number"),
        ("SONGSTATS_HIT_LIMIT", "1.5", "a whole number"),
        ("MAX_ATTEMPTS", "0", "1 or more"),
        ("STRIPE_TRIAL_DAYS", "731", "730 or less"),
        ("SONGSTATS_EUR_PER_HIT", "0,08", "a number"),
        ("SILENCE_ALARM_HOURS", "inf", "a number that is not infinite"),
        ("CLAIM_TIMEOUT_SECONDS", "0", "more than 0"),
        ("BACKFILL_ACCOUNT_ID", "7", "a UUID"),
        ("DEPLOYMENT_KIND", "Live", "'sandbox' or 'live'"),
    ],
)
def test_the_error_for_a_malformed_value_names_the_expected_form(variable: str, value: str, expected: str):
    words = f"{variable}: expected {expected} (got '{value}')"
    with pytest.raises(SettingsError) as refused:
        Settings.read({variable: value})
    assert str(refused.value) == words
    with pytest.raises(SettingsError) as both:
        Settings.read({variable: value, "SONGSTATS_CONCURRENCY": "many"})
    assert set(str(both.value).split("; ")) == {
        words,
        "SONGSTATS_CONCURRENCY: expected a whole number (got 'many')",
    }


MALFORMED = {
    "DATABASE_URL": ["mysql://x", "localhost:5432", "postgresql:/x", " postgresql://h/d", "postgresql://h/d\n"],
    "DAGSTER_POSTGRES_URL": ["sqlite:///x", "postgresql+psycopg://x", "postgresql://h/d ", "service=dagster"],
    "DEPLOYMENT_KIND": ["production", "Live"],
    "SONGSTATS_API_KEY": ["two words", "kéy", "line\nbreak"],
    "SONGSTATS_BASE_URL": [
        "api.songstats.com",
        "ftp://api.songstats.com",
        "http://",
        "http://[::1",
        "http://x:port",
        "http://x?y=1",
    ],
    "SONGSTATS_SOURCES": ["deezer", "all", "spotify,", "spotify, deezer", "Spotify"],
    "SONGSTATS_HIT_LIMIT": ["-1", "many", "1.5"],
    "SONGSTATS_HIT_RESERVE": ["-1", "x"],
    "SONGSTATS_REQUESTS_PER_SECOND": ["-1", "nan", "inf", "1001", "1e-300", "fast"],
    "SONGSTATS_CONCURRENCY": ["0", "201", "x"],
    "SONGSTATS_TIMEOUT_SECONDS": ["0", "-1", "nan", "inf", "601"],
    "SONGSTATS_EUR_PER_HIT": ["-0.1", "nan", "inf", "0,08"],
    "CLAIM_TIMEOUT_SECONDS": ["0", "-5", "nan", "inf", "soon"],
    "MAX_ATTEMPTS": ["0", "-1", "x"],
    "STRIPE_SECRET_KEY": ["rk test", "rk\ttest"],
    "STRIPE_API_BASE": ["api.stripe.com", "https://"],
    "CHECKOUT_SUCCESS_URL": ["javascript:alert(1)", "/thanks"],
    "STRIPE_TRIAL_DAYS": ["0", "731", "x"],
    "BACKFILL_ACCOUNT_ID": ["me", "3f2b8f0e"],
    "APIFY_TOKEN": ["two words", "tokén"],
    "APIFY_BASE_URL": ["api.apify.com", "http://x:port", "https://me:pw@api.apify.com"],
    "SPOTIFY_CLIENT_ID": ["two words"],
    "SPOTIFY_CLIENT_SECRET": ["two words", "sécret"],
    "SPOTIFY_API_BASE": ["api.spotify.com", "https://"],
    "SPOTIFY_ACCOUNTS_BASE": ["accounts.spotify.com", "ftp://accounts.spotify.com"],
    "SNAPSHOT_MONTHLY_CAP_USD": ["-0.01", "nan", "inf", "12,50", "much"],
}


@pytest.mark.parametrize(
    ("variable", "value"), [(name, value) for name, values in MALFORMED.items() for value in values]
)
def test_the_error_names_the_malformed_variable(variable: str, value: str):
    with pytest.raises(SettingsError, match=variable) as caught:
        Settings.read({variable: value})
    assert re.search(r"expected |must ", str(caught.value)), "the expected form is in our own words"
    assert caught.value.__cause__ is None


def test_all_malformed_variables_are_reported_together():
    with pytest.raises(SettingsError) as caught:
        Settings.read({"MAX_ATTEMPTS": "x", "STRIPE_TRIAL_DAYS": "0", "DEPLOYMENT_KIND": "prod"})
    assert all(name in str(caught.value) for name in ("MAX_ATTEMPTS", "STRIPE_TRIAL_DAYS", "DEPLOYMENT_KIND"))
    assert "'prod'" in str(caught.value)


SECRET = "hunter2"


@pytest.mark.parametrize(
    "environment",
    [
        {"DATABASE_URL": f"mysql://me:{SECRET}@db/x"},
        {"DAGSTER_POSTGRES_URL": f"me:{SECRET}@db/x"},
        {"SONGSTATS_API_KEY": f"{SECRET} x"},
        {"STRIPE_SECRET_KEY": f"{SECRET}\n"},
        {"SONGSTATS_BASE_URL": f"https://me:{SECRET}@api.songstats.com"},
        {"STRIPE_API_BASE": f"https://me:{SECRET}@api.stripe.com"},
        {"CHECKOUT_SUCCESS_URL": f"ftp://me:{SECRET}@x"},
        {"APIFY_TOKEN": f"{SECRET} x"},
        {"APIFY_BASE_URL": f"https://me:{SECRET}@api.apify.com"},
        {"SPOTIFY_CLIENT_SECRET": f"{SECRET} x", "SPOTIFY_CLIENT_ID": "me"},
        {"SPOTIFY_API_BASE": f"https://me:{SECRET}@api.spotify.com"},
    ],
    ids=lambda environment: next(iter(environment)),
)
def test_the_error_for_a_malformed_secret_shows_its_name_only(environment: dict[str, str]):
    with pytest.raises(SettingsError) as caught:
        Settings.read(environment)
    assert SECRET not in str(caught.value)
    assert next(iter(environment)) in str(caught.value)


# --- sandbox or live ----------------------------------------------------------------------------------------------------


def test_real_vendors_are_live_and_doubles_are_a_sandbox():
    assert Settings.read({}).kind == "live"
    assert Settings.read(DOUBLES).kind == "sandbox"


@pytest.mark.parametrize(
    "spelt",
    [
        "https://api.songstats.com/",
        "https://API.Songstats.com",
        "https://api.songstats.com:443",
        "https://api.songstats.com./x",
    ],
)
def test_a_real_vendor_is_recognised_by_its_host_in_any_spelling(spelt: str):
    assert Settings.read({"SONGSTATS_BASE_URL": spelt}).kind == "live"
    with pytest.raises(SettingsError, match="both"):
        _ = Settings.read({**DOUBLES, "SONGSTATS_BASE_URL": spelt}).kind


@pytest.mark.parametrize("double", DOUBLES)
@pytest.mark.parametrize("kind", [None, "live", "sandbox"])
def test_one_real_vendor_and_one_double_are_rejected(double: str, kind: str | None):
    settings = Settings.read({double: DOUBLES[double]} | ({"DEPLOYMENT_KIND": kind} if kind else {}))
    with pytest.raises(
        SettingsError, match=r"SONGSTATS_BASE_URL .* STRIPE_API_BASE .* must both be the real vendors or both"
    ):
        _ = settings.kind


def test_a_sandbox_with_real_vendors_is_rejected():
    with pytest.raises(SettingsError, match="DEPLOYMENT_KIND is sandbox"):
        _ = Settings.read({"DEPLOYMENT_KIND": "sandbox"}).kind


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "localhost", "[::1]"])
def test_a_live_deployment_with_loopback_doubles_is_rejected(host: str):
    address = f"http://{host}:9000"
    settings = Settings.read({"SONGSTATS_BASE_URL": address, "STRIPE_API_BASE": address, "DEPLOYMENT_KIND": "live"})
    with pytest.raises(SettingsError, match="DEPLOYMENT_KIND is live"):
        _ = settings.kind


def test_a_deployment_with_proxies_for_both_vendors_may_be_live():
    proxies = {
        "SONGSTATS_BASE_URL": "https://songstats.proxy.example",
        "STRIPE_API_BASE": "https://localhost.proxy.example",
    }
    assert Settings.read(proxies).kind == "sandbox"
    assert Settings.read({**proxies, "DEPLOYMENT_KIND": "live"}).kind == "live"


# --- the vendors of captures --------------------------------------------------------------------------------------------

SPOTIFY = {"SPOTIFY_CLIENT_ID": "a-client", "SPOTIFY_CLIENT_SECRET": "a-secret"}
PROXIES = {"SONGSTATS_BASE_URL": "https://s.proxy.example", "STRIPE_API_BASE": "https://p.proxy.example"}
A_DOUBLE = "http://127.0.0.1:9000"


def test_the_settings_of_captures_are_read_and_not_shown():
    settings = Settings.read({"APIFY_TOKEN": "a-token", **SPOTIFY, "SNAPSHOT_MONTHLY_CAP_USD": "12.50"})
    assert settings.apify_token is not None
    assert settings.spotify_client_secret is not None
    assert settings.spotify_client_secret.get_secret_value() == "a-secret"
    assert settings.snapshot_monthly_cap_usd == Decimal("12.50")
    assert "a-token" not in repr(settings)
    assert "a-secret" not in repr(settings)


@pytest.mark.parametrize(("given", "missing"), [tuple(SPOTIFY), tuple(reversed(SPOTIFY))])
def test_half_of_spotifys_credentials_is_rejected_with_the_missing_name(given: str, missing: str):
    with pytest.raises(
        SettingsError, match=f"{given} is set and {missing} is not: expected both, or neither"
    ) as caught:
        Settings.read({given: SPOTIFY[given]})
    assert SPOTIFY[given] not in str(caught.value)


def test_an_unused_capture_vendor_may_have_any_url():
    assert Settings.read({"APIFY_BASE_URL": A_DOUBLE, "SPOTIFY_API_BASE": A_DOUBLE}).kind == "live"
    assert Settings.read(DOUBLES).kind == "sandbox"


def test_capture_vendors_are_real_or_doubles_like_the_others():
    requested = {"APIFY_TOKEN": "a-token", **SPOTIFY}
    doubles = dict.fromkeys(("APIFY_BASE_URL", "SPOTIFY_API_BASE", "SPOTIFY_ACCOUNTS_BASE"), A_DOUBLE)
    assert Settings.read(requested).kind == "live"
    assert Settings.read({**DOUBLES, **requested, **doubles}).kind == "sandbox"


@pytest.mark.parametrize("name", ["APIFY_BASE_URL", "SPOTIFY_API_BASE", "SPOTIFY_ACCOUNTS_BASE"])
def test_a_double_never_writes_into_a_live_table(name: str):
    settings = Settings.read({"APIFY_TOKEN": "a-token", **SPOTIFY, name: A_DOUBLE})
    with pytest.raises(SettingsError, match=rf"{name} \(host 127.0.0.1\) must be the real vendor"):
        _ = settings.kind


def test_a_sandbox_never_spends_real_money():
    with pytest.raises(SettingsError, match=r"APIFY_BASE_URL \(host api.apify.com\) must be a double"):
        _ = Settings.read({**DOUBLES, "APIFY_TOKEN": "a-token"}).kind
    with pytest.raises(SettingsError, match=r"SPOTIFY_ACCOUNTS_BASE .* must be a double"):
        _ = Settings.read({**DOUBLES, **SPOTIFY, "SPOTIFY_API_BASE": A_DOUBLE}).kind


def test_capture_vendors_of_a_live_deployment_behind_proxies_are_not_on_loopback():
    live = {**PROXIES, "DEPLOYMENT_KIND": "live", "APIFY_TOKEN": "a-token"}
    assert Settings.read(live).kind == "live"
    assert Settings.read({**live, "APIFY_BASE_URL": "https://a.proxy.example"}).kind == "live"
    with pytest.raises(SettingsError, match="APIFY_BASE_URL"):
        _ = Settings.read({**live, "APIFY_BASE_URL": A_DOUBLE}).kind
    with pytest.raises(SettingsError, match="APIFY_BASE_URL"):
        _ = Settings.read({**PROXIES, "APIFY_TOKEN": "a-token"}).kind


# --- services ---------------------------------------------------------------------------------------------------------


def test_a_deployment_without_a_database_is_rejected():
    with pytest.raises(SettingsError, match="DATABASE_URL is not set"):
        create_services(Settings.read({**DOUBLES, **KEYS}))


@pytest.mark.parametrize("missing", KEYS)
def test_the_error_names_a_missing_key_at_start(missing: str):
    environment = {**DOUBLES, **KEYS, "DATABASE_URL": "postgresql://x/x"}
    del environment[missing]
    with pytest.raises(SettingsError, match=f"{missing} is not set, for a sandbox deployment"):
        create_services(Settings.read(environment))


def test_mixed_vendors_are_rejected_at_start():
    environment = {**KEYS, "DATABASE_URL": "postgresql://x/x", "STRIPE_API_BASE": "http://127.0.0.1:9000"}
    with pytest.raises(SettingsError, match="must both be the real vendors or both doubles"):
        load_services(environment)


def test_the_backfill_config_has_the_values_of_the_settings():
    environment = {
        **DOUBLES, **KEYS, "DATABASE_URL": "postgresql://x/x", "SONGSTATS_HIT_LIMIT": "50", "SONGSTATS_HIT_RESERVE": "8",
        "SONGSTATS_REQUESTS_PER_SECOND": "2.5", "SONGSTATS_CONCURRENCY": "3", "CLAIM_TIMEOUT_SECONDS": "8",
        "MAX_ATTEMPTS": "2", "BACKFILL_ACCOUNT_ID": ACCOUNT,
    }  # fmt: skip
    config = create_services(Settings.read(environment)).backfill_config
    assert (config.hits_allowed, config.requests_per_second, config.concurrency) == (42, 2.5, 3)
    assert (config.rules.claim_timeout_seconds, config.rules.max_attempts) == (8.0, 2)
    assert config.rules.operators_account == UUID(ACCOUNT)
    assert config.heartbeat_seconds <= config.rules.claim_timeout_seconds / 4


def test_services_are_created_without_a_reachable_database():
    environment = {**DOUBLES, **KEYS, "DATABASE_URL": f"postgresql://me:{SECRET}@127.0.0.1:1/x"}
    assert load_services(environment).database.url == environment["DATABASE_URL"]


def test_a_stored_decision_is_used_without_a_request_to_stripe(database_url: str):
    environment = {**DOUBLES, **KEYS, "DATABASE_URL": database_url, "STRIPE_API_BASE": "http://127.0.0.1:1"}
    result = create_services(Settings.read(environment))
    PaymentDecisions(database_url).record(UUID(ACCOUNT), Decision(PaymentVerdict.ALLOWED, "a card"))
    assert result.stripe.decide(UUID(ACCOUNT)).verdict is PaymentVerdict.ALLOWED
    assert result.stripe.check_payment(UUID(ACCOUNT)) is PaymentVerdict.ALLOWED


# --- the HTTP API -------------------------------------------------------------------------------------------------------

ISSUER = {"API_JWT_ISSUER": "https://issuer.example", "API_JWT_AUDIENCE": "measurements"}
JWKS = {**ISSUER, "API_JWKS_URL": "https://issuer.example/jwks.json"}
SHARED = {**ISSUER, "API_JWT_SECRET": "a secret of more than thirty-two characters"}


def test_the_token_algorithm_follows_its_key():
    assert Settings.read(JWKS).jwt_algorithm == "RS256"
    assert Settings.read(SHARED).jwt_algorithm == "HS256"
    assert Settings.read({**JWKS, "API_JWT_ALGORITHM": "ES256"}).jwt_algorithm == "ES256"


@pytest.mark.parametrize(
    "environment",
    [
        ISSUER,
        {"API_JWKS_URL": JWKS["API_JWKS_URL"]},
        {"API_JWT_ALGORITHM": "RS256"},
        {**JWKS, **SHARED},
        {**JWKS, "API_JWT_AUDIENCE": ""},
    ],
)
def test_incomplete_token_settings_are_rejected(environment: dict[str, str]):
    with pytest.raises(SettingsError, match="bearer tokens need API_JWT_ISSUER, API_JWT_AUDIENCE and exactly one of"):
        Settings.read(environment)


@pytest.mark.parametrize(
    "environment", [{**JWKS, "API_JWT_ALGORITHM": "HS256"}, {**SHARED, "API_JWT_ALGORITHM": "RS256"}]
)
def test_an_algorithm_that_does_not_fit_the_key_is_rejected(environment: dict[str, str]):
    with pytest.raises(SettingsError, match=r"API_JWT_ALGORITHM .* does not fit"):
        Settings.read(environment)


@pytest.mark.parametrize("variable", ["API_KEY_SECRET", "API_JWT_SECRET"])
def test_a_short_secret_is_rejected_and_not_shown(variable: str):
    with pytest.raises(SettingsError) as refused:
        Settings.read({**SHARED, variable: "hunter2"})
    assert f"{variable}: expected 32 characters or more" in str(refused.value)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("origins", ["*", "https://a.example/", "https://a.example, https://b.example", "a.example"])
def test_an_invalid_origin_is_rejected(origins: str):
    with pytest.raises(SettingsError, match="API_CORS_ORIGINS: expected origins such as"):
        Settings.read({"API_CORS_ORIGINS": origins})


def test_a_live_deployment_needs_an_api_key_secret_and_a_sandbox_has_one():
    with pytest.raises(SettingsError, match="API_KEY_SECRET is not set"):
        services.api_config(Settings.read({"DATABASE_URL": "postgresql://x/y", **KEYS}))
    config = services.api_config(Settings.read({"DATABASE_URL": "postgresql://x/y", **KEYS, **DOUBLES}))
    assert config.key_secret == services.SANDBOX_KEY_SECRET
    own = {"API_KEY_SECRET": "a secret of this deployment, and of no other one"}
    assert (
        services.api_config(Settings.read({"DATABASE_URL": "postgresql://x/y", **KEYS, **own})).key_secret
        == own["API_KEY_SECRET"]
    )


def test_the_api_config_has_the_values_of_the_settings():
    config = services.api_config(
        Settings.read(
            {
                "DATABASE_URL": "postgresql://x/y", **KEYS, **DOUBLES, **JWKS, "API_CORS_ORIGINS": "https://a.example,http://b:1",
                "API_REQUESTS_PER_MINUTE": "7",
            }
        )
    )  # fmt: skip
    assert config.bearer is not None
    assert (config.bearer.issuer, config.bearer.audience, config.bearer.algorithm) == (*ISSUER.values(), "RS256")
    assert (config.cors_origins, config.requests_per_minute) == (["https://a.example", "http://b:1"], 7)
    assert (config.capture_limits, config.hits_allowed) == (None, 900)
