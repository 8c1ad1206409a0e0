"""The setting of the audit."""

from __future__ import annotations

from pydantic import Field, PositiveFloat

from binder_onprem.config.frozen import Frozen


class Audit(Frozen):
    """What is kept of who did what."""

    keep: PositiveFloat = Field(default=365 * 86400, description="seconds that the record of what administrators did is kept")
