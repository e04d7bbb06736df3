"""Does Spotify take the client's id and secret? One token, which is free; no track is asked about."""

from dataclasses import dataclass

from measurement_pipeline.vendors.http import VendorHttpClient
from measurement_pipeline.vendors.spotify.lookup_batch import LookupBatch
from measurement_pipeline.vendors.spotify.web_api import CredentialsRefusedError, WebApi


@dataclass(frozen=True, slots=True)
class ClientStanding:
    """Whether Spotify takes the client: True, False, or None where it could not be found out. `words` hold no secret."""

    works: bool | None
    words: str


def check_client(
    client_id: str, client_secret: str, *, api_base: str, accounts_base: str, timeout_seconds: float
) -> ClientStanding:
    """Ask for a token, once."""
    # Without patience: whatever asks to wait has given no answer.
    errand = LookupBatch(sleep=lambda _seconds: None, patience=0.0)
    try:
        api, accounts = VendorHttpClient(api_base), VendorHttpClient(accounts_base)
        web_api = WebApi(client_id, client_secret, api=api, accounts=accounts, timeout_seconds=timeout_seconds)
    except ValueError as error:
        return ClientStanding(False, str(error))
    try:
        given = web_api.has_token(errand)
    except CredentialsRefusedError as error:
        return ClientStanding(False, str(error))
    finally:
        web_api.close()
    if not given:
        return ClientStanding(None, errand.why or "Spotify gave no token")
    return ClientStanding(True, "Spotify takes the client")
