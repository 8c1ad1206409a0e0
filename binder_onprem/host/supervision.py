"""What keeps the parts running: systemd where it is PID 1, else supervisord; both are told by generated files and asked for states.

`up`, `down`, `status` and `check` call it. It knows parts, not what they do. A part is restarted by it when it dies, and by `apply` when its
revision (argv, environment, configuration) is another one than the running one's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from binder_onprem.config import Config
    from binder_onprem.host.machine import Host
    from binder_onprem.host.parts import Part

State = Literal["running", "starting", "stopped", "failed"]


@dataclass(frozen=True, slots=True)
class Status:
    """A part as the supervisor sees it.

    Attributes:
        state: What it does.
        pid: Its process id; 0: none.
    """

    state: State
    pid: int

    @property
    def alive(self) -> bool:
        """Whether it runs or is about to."""
        return self.state in ("running", "starting")


class Supervision(Protocol):
    """A kept supervisor that runs this site's parts."""

    def prepare(self, parts: Sequence[Part]) -> frozenset[str]:
        """Write down what shall run, stop what shall not run any more or not like this; names of the parts that are not running as written.

        Raises `HostUnfit` if the supervisor cannot be had.
        """
        ...

    def start(self, name: str) -> None:
        """Start a part that was prepared; running is fine."""
        ...

    def stop(self, name: str) -> None:
        """Stop a part and wait for its end; stopped or unknown is fine."""
        ...

    def states(self) -> dict[str, Status]:
        """Every known part; empty if nothing is set up."""
        ...

    def leave(self) -> None:
        """Stop every part and take the supervisor's own traces away; absent is fine."""
        ...


def supervision(config: Config, host: Host) -> Supervision:
    """The supervisor for this machine."""
    if host.systemd:
        from binder_onprem.host.systemd import Systemd  # noqa: PLC0415 - only one of the two is ever needed

        return Systemd(config)
    from binder_onprem.host.supervisord import Supervisord  # noqa: PLC0415 - only one of the two is ever needed

    return Supervisord(config)
