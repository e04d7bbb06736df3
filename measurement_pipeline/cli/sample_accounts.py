"""The sample data of a sandbox: two accounts, one with a card, each with its own sample catalogue."""

from uuid import UUID

from measurement_pipeline.api import keys
from measurement_pipeline.cli import catalog_command
from measurement_pipeline.postgres import api_keys, payment_decisions
from measurement_pipeline.postgres.database import Connection
from measurement_pipeline.sandbox import SAMPLE_CSV, SandboxClient
from measurement_pipeline.sandbox.scenarios import Behaviour

WITH_CARD = UUID("00000000-0000-4000-8000-0000000000ca")
WITHOUT_CARD = UUID("00000000-0000-4000-8000-000000000000")
CATALOGS = {WITH_CARD: "sample", WITHOUT_CARD: "sample-unpaid"}

# The API key of the account with a card. It is no secret, like everything in a sandbox.
API_KEY = "mp_sandbox0_every-sandbox-has-this-key-and-no-other-one"


def ensure_api_key(connection: Connection, secret: str) -> str | None:
    """Create the sample API key if missing and return it; None if it was revoked, or belongs to another API_KEY_SECRET."""
    prefix = str(keys.parse_prefix(API_KEY))
    digest = keys.hash_key(API_KEY, secret=secret)
    api_keys.add(connection, account=WITH_CARD, name="sandbox", prefix=prefix, digest=digest)
    kept = api_keys.find(connection, prefix)
    if kept is None or kept.refused_because is not None or not keys.matches_digest(API_KEY, kept.digest, secret=secret):
        return None
    return API_KEY


def seed_accounts(connection: Connection, sandbox: SandboxClient) -> dict[UUID, UUID]:
    """Create missing sample data, and return the catalogue of each account."""
    # These doubles may listen on another port than the ones that created the Checkout links. The sessions remain valid.
    payment_decisions.forget_checkouts(connection)
    sandbox.card(str(WITH_CARD))
    sample = catalog_command.read_file(SAMPLE_CSV)
    return {
        account: catalog_command.load(
            connection,
            sample,
            account=account,
            name=CATALOGS[account],
            # The histories of the doubles have these counts on that day.
            as_of=Behaviour().counted_on,
            raw_ref=SAMPLE_CSV.name,
            account_name=name,
        )
        for account, name in ((WITH_CARD, "with a card"), (WITHOUT_CARD, "without a card"))
    }
