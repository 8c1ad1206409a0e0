"""Alembic's entry: runs the scripts over the connection that `store` hands in, never over one of its own."""

from alembic import context

from binder_onprem.store.tables import METADATA

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=METADATA, render_as_batch=True, transaction_per_migration=False)
with context.begin_transaction():
    context.run_migrations()
