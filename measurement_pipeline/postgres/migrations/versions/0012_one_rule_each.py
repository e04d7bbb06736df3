"""Define once who wants and pays for a recording, its latest count and its run rate. The statements are in the .sql file."""

from pathlib import Path

from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Create the views and functions that several statements share."""
    op.get_bind().exec_driver_sql(Path(__file__).with_suffix(".sql").read_text(encoding="utf-8"))
