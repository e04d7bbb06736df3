"""How a call to Apify ended without an answer that serves: one tree, drawn here. No text of it holds the token."""


class ApifyError(Exception):
    """Apify gave no answer that serves. The message is one line for a person."""


class TokenRefusedError(ApifyError):
    """401, 402 or 403: the token, or the account behind it, may not do this, or cannot pay for it."""


class ThrottledError(ApifyError):
    """429, or all of the account's memory or runs are in use: later. `retry_after_seconds` is None where Apify does not say."""

    def __init__(self, message: str, *, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class UnavailableError(ApifyError):
    """5xx, no connection, no answer in time, or one that cannot be read: nothing is known.

    `may_have_been_received` is True where a run may have been started by the request whose answer is missing: look for it before
    another is started.
    """

    def __init__(self, message: str, *, may_have_been_received: bool = False) -> None:
        super().__init__(message)
        self.may_have_been_received = may_have_been_received


class NotSeenError(UnavailableError):
    """404 for a run that is known to exist: Apify's copies lag behind for some seconds, or it has forgotten the run."""


class NotAllThereYetError(UnavailableError):
    """What a run found is written, and not all of it can be read yet: for some seconds."""


class RejectedError(ApifyError):
    """Any other 4xx: Apify does not do what was asked, and would not do it the next time either."""

    def __init__(self, message: str, *, status_code: int) -> None:
        super().__init__(message)
        self.status_code = status_code
