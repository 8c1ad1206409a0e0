"""Alembic's scripts for the database's schema; `store.open_store` runs them at every opening."""
