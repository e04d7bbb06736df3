"""Alembic's entry point: run the migrations in `versions/` on the connection of `postgres/migrate.py`."""

from alembic import context

context.configure(connection=context.config.attributes["connection"], transaction_per_migration=True)
with context.begin_transaction():
    context.run_migrations()
