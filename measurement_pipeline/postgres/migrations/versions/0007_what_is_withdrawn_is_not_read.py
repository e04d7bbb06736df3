"""What an account may read, which count is the latest, since when a series goes on. The statements are in the .sql file."""

from pathlib import Path

from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Replace the view of what accounts may read; add the view of latest counts and the start of a series."""
    op.get_bind().exec_driver_sql(Path(__file__).with_suffix(".sql").read_text(encoding="utf-8"))
