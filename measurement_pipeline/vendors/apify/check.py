"""Does Apify accept the token for the required actor? Lists one run of the actor, which is free."""

from measurement_pipeline.vendors.apify.client import ApifyClient
from measurement_pipeline.vendors.credentials import CredentialCheck, check_credentials


def check_token(token: str, *, base_url: str, timeout_seconds: float) -> CredentialCheck:
    """List the newest run. Whether the account can pay for a run shows only when one is started."""

    def list_newest_run() -> None:
        with ApifyClient(token, base_url=base_url, timeout_seconds=timeout_seconds) as client:
            client.list_newest_run()

    return check_credentials("Apify", list_newest_run)
