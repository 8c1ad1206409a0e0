"""The database: records of builds, launches and uses of images, and the tables of other rooms beside them."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from binder_onprem.store.database import open_engine, opened
from binder_onprem.store.outbox import SqlOutbox
from binder_onprem.store.policy import SqlPolicy
from binder_onprem.store.records import SqlStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["SqlOutbox", "SqlPolicy", "SqlStore", "open_engine", "open_store", "opened"]


@asynccontextmanager
async def open_store(url: str) -> AsyncIterator[SqlStore]:
    """The records at a SQLAlchemy URL, alone. Raises StoreUnavailable."""
    async with open_engine(url) as engine, opened(SqlStore, engine) as store:
        yield store
