"""How a build ended, said in a record, in a log's last line and as an error: pure, called by `builds` and `attempt`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from binder_onprem.errors import BuildCancelled, BuildFailed, BuildInterrupted, BuildTimeout, LimitHit
from binder_onprem.events import Phase
from binder_onprem.model import BuildState

if TYPE_CHECKING:
    from binder_onprem.model import BuildRecord


def cancelled(by: str) -> BuildCancelled:
    """The end of a build that `by` stopped."""
    return BuildCancelled(f"The build was cancelled by {by[:100]}.")


def verdict(record: BuildRecord) -> tuple[Phase, str]:
    """The last line of a build's log."""
    if record.state is BuildState.BUILT:
        return Phase.BUILT, "The image is built.\n"
    return Phase.FAILED, (record.message or "The build failed.") + "\n"


def failure(record: BuildRecord) -> BuildFailed:
    """The error that a record which did not end BUILT stands for."""
    kinds = (LimitHit, BuildTimeout, BuildCancelled, BuildInterrupted)
    kind = next((kind for kind in kinds if kind.code == record.error), BuildFailed)
    return kind(record.message or "The build failed. The log says why.")
