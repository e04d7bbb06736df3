"""Does Apify take the token, for the actor that is needed? One look at the actor's list of runs, which is free."""

from dataclasses import dataclass

from measurement_pipeline.vendors.apify.client import ApifyClient
from measurement_pipeline.vendors.apify.errors import ApifyError, RejectedError, TokenRefusedError


@dataclass(frozen=True, slots=True)
class TokenStanding:
    """Whether Apify takes the token: True, False, or None where it could not be found out. `words` hold no part of it."""

    works: bool | None
    words: str


def check_token(token: str, *, base_url: str, timeout_seconds: float) -> TokenStanding:
    """Ask for one run of the actor. Whether the account can pay for one shows only where one is started."""
    try:
        with ApifyClient(token, base_url=base_url, timeout_seconds=timeout_seconds) as actor:
            actor.list_newest_run()
    except (ValueError, TokenRefusedError, RejectedError) as error:
        return TokenStanding(False, str(error))
    except ApifyError as error:
        return TokenStanding(None, str(error))
    return TokenStanding(True, "Apify takes the token")
