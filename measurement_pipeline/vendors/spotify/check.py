"""Does Spotify accept the client id and secret? Requests one token, which is free."""

from measurement_pipeline.vendors.credentials import CredentialCheck, check_credentials
from measurement_pipeline.vendors.errors import UnavailableError
from measurement_pipeline.vendors.http import VendorHttpClient
from measurement_pipeline.vendors.spotify.lookup_batch import LookupBatch
from measurement_pipeline.vendors.spotify.web_api import SpotifyWebApi


def check_client(
    client_id: str, client_secret: str, *, api_base: str, accounts_base: str, timeout_seconds: float
) -> CredentialCheck:
    """Request a token, once."""

    def request_token() -> None:
        # Without a wait budget, a response that asks to wait counts as no answer.
        batch = LookupBatch(sleep=lambda _seconds: None, wait_budget_seconds=0.0)
        api, accounts = VendorHttpClient(api_base), VendorHttpClient(accounts_base)
        web_api = SpotifyWebApi(client_id, client_secret, api=api, accounts=accounts, timeout_seconds=timeout_seconds)
        try:
            if not web_api.has_token(batch):
                raise UnavailableError(batch.reason or "Spotify gave no token")
        finally:
            web_api.close()

    return check_credentials("Spotify", request_token)
