"""What a sandbox is seeded with: two accounts, a card for one of them, and the sample catalogue of each."""

from uuid import UUID

from measurement_pipeline.cli import catalog_command
from measurement_pipeline.postgres import payment_decisions
from measurement_pipeline.postgres.database import Connection
from measurement_pipeline.sandbox import SAMPLE_CSV, Sandbox
from measurement_pipeline.sandbox.behaviour import Behaviour

WITH_CARD = UUID("00000000-0000-4000-8000-0000000000ca")
WITHOUT_CARD = UUID("00000000-0000-4000-8000-000000000000")
CATALOG = "sample"


def seed(connection: Connection, sandbox: Sandbox) -> dict[UUID, UUID]:
    """Make what is missing of it; account → its catalogue."""
    # The doubles of an earlier start are gone, and their Checkout pages with them.
    payment_decisions.forget_checkouts(connection)
    sandbox.card(str(WITH_CARD))
    sample = catalog_command.read_file(SAMPLE_CSV)
    return {
        account: catalog_command.load(
            connection,
            sample,
            account=account,
            name=CATALOG,
            # The doubles' histories end on that day, at these counts.
            as_of=Behaviour().last_day,
            raw_ref=SAMPLE_CSV.name,
            account_name=name,
        )
        for account, name in ((WITH_CARD, "with a card"), (WITHOUT_CARD, "without a card"))
    }
