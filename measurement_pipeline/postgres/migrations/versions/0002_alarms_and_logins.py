"""Alarms, clients' logins, how long a pause is the vendor's own wish. The statements are in the .sql file of the same name."""

from pathlib import Path

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Create what 0001 lacks."""
    op.get_bind().exec_driver_sql(Path(__file__).with_suffix(".sql").read_text(encoding="utf-8"))
