"""Why a vendor call gave no usable response: one hierarchy for all vendors.

    VendorError
    ├── UnavailableError             no response, 408, 425, 5xx, or a response that the vendor did not send
    │   ├── ThrottledError           429, or the account's capacity is in use
    │   ├── NotVisibleError          404 for an object that is known to exist
    │   ├── IncompleteResultError    fewer items than the vendor counts
    │   └── UnexpectedResponseError  a response in another shape than the vendor documents
    ├── CredentialsRejectedError     401, 402, 403: the key, the token or its account
    └── RequestRejectedError         any other 4xx

`is_retryable` says whether the same request can succeed later. The errors below `UnavailableError` are retryable: nothing is
known of the request's result. The others need an operator or another request. No message contains a credential.

Songstats calls return a `SongstatsResponse` instead of raising, because every call is accounted for. `historic_stats` classifies
it by the outcome table. Stripe's own exceptions are converted in `vendors/stripe/errors`.
"""

from http import HTTPStatus
from typing import ClassVar

_RETRYABLE_STATUSES = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}


def is_retryable_status(status: int) -> bool:
    """Whether an HTTP status means "try again later", from the vendor or from a gateway in front of it."""
    return status in _RETRYABLE_STATUSES or status >= HTTPStatus.INTERNAL_SERVER_ERROR


class VendorError(Exception):
    """A vendor call without a usable response. The message is one line for an operator.

    `may_have_been_received`: the vendor may have executed the request although its response is missing. A caller that pays for
    the request must look for its result before it sends the request again.
    """

    is_retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, may_have_been_received: bool = False) -> None:
        super().__init__(message)
        self.may_have_been_received = may_have_been_received


class UnavailableError(VendorError):
    """The vendor gave no response that says anything about the request.

    `retry_after_seconds`: how long the vendor asks to wait, or None if it does not say.
    """

    is_retryable = True

    def __init__(
        self, message: str, *, may_have_been_received: bool = False, retry_after_seconds: float | None = None
    ) -> None:
        super().__init__(message, may_have_been_received=may_have_been_received)
        self.retry_after_seconds = retry_after_seconds


class ThrottledError(UnavailableError):
    """The vendor received too many requests and did not execute this one."""


class NotVisibleError(UnavailableError):
    """The vendor does not show an object that is known to exist: its replicas lag for seconds, or it deleted the object."""


class IncompleteResultError(UnavailableError):
    """The result is written, but not all of it is readable yet."""


class UnexpectedResponseError(UnavailableError):
    """The vendor's response has another shape than documented. `problem` names what was expected."""

    def __init__(self, vendor: str, problem: str) -> None:
        super().__init__(f"Unexpected response from {vendor}: {problem}")
        self.problem = problem


class CredentialsRejectedError(VendorError):
    """The vendor rejects the credentials, or their account may not do this or cannot pay for it."""


class RequestRejectedError(VendorError):
    """The vendor rejects the request, and would reject it again."""

    def __init__(self, message: str, *, status_code: int) -> None:
        super().__init__(message)
        self.status_code = status_code
