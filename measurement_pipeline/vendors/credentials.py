"""Do the configured credentials of a vendor work? The answer to each vendor's free check."""

from collections.abc import Callable
from dataclasses import dataclass

from measurement_pipeline.vendors.errors import VendorError


@dataclass(frozen=True, slots=True)
class CredentialCheck:
    """Whether a vendor accepts the credentials: True, False, or None if it gave no answer. `message` contains no credential."""

    is_accepted: bool | None
    message: str


def check_credentials(vendor: str, request: Callable[[], object]) -> CredentialCheck:
    """Send one free request. A setting that no request can carry (`ValueError`) counts as rejected."""
    try:
        request()
    except ValueError as error:
        return CredentialCheck(is_accepted=False, message=str(error))
    except VendorError as error:
        return CredentialCheck(is_accepted=None if error.is_retryable else False, message=str(error))
    return CredentialCheck(is_accepted=True, message=f"{vendor} accepts the credentials")
