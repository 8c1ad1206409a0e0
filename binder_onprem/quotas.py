"""How many sessions at once, and in which order those who wait get theirs: pure, called by `admission` and `room`.

A claim is what one launch takes part in: the whole site, a repository, somebody, groups. Who waits is served in the order of tags that are given
on arrival (weighted fair queueing): everybody in turn, however many launches one of them brings, and since every start moves the common clock
on, each tag is some time the lowest: nobody waits for ever.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping


class Kind(StrEnum):
    """Of what there is no more."""

    TOTAL = "total"
    REPOSITORY = "repository"
    USER = "user"
    GROUP = "group"


@dataclass(frozen=True, slots=True)
class Limits:
    """Sessions at once.

    Attributes:
        total: On the whole site; 0: closed.
        user: Of one account; 0: no limit.
        address: Of one address without an account; 0: no limit.
        groups: Of all members of a group.
    """

    total: int
    user: int = 0
    address: int = 0
    groups: Mapping[str, int] = field(default_factory=dict)

    @property
    def personal(self) -> bool:
        """Whether it matters whose a session is."""
        return bool(self.user or self.address or self.groups)


@dataclass(frozen=True, slots=True)
class Claim:
    """What a launch's session counts against.

    Attributes:
        launch_id: Whose claim.
        repository: Name of the image's repository.
        url: Of the repository, for people.
        quota: Sessions of this repository at once; 0: no limit.
        subject: ``user:NAME`` or an address; None where nobody is counted.
        groups: The account's.
    """

    launch_id: str
    repository: str
    url: str = ""
    quota: int = 0
    subject: str | None = None
    groups: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Shortage:
    """Why there is no room.

    Attributes:
        kind: Of what.
        limit: That is reached.
        message: The sentence for people; BinderHub's where it has one.
    """

    kind: Kind
    limit: int
    message: str


def shortage(claim: Claim, others: Collection[Claim], limits: Limits) -> Shortage | None:
    """Whether something stands against one more session, and what.

    Args:
        claim: Of the launch.
        others: What is taken already, without the launch's own.
        limits: The site's.
    """
    if len(others) >= limits.total:
        return Shortage(Kind.TOTAL, limits.total, "Too many users on this BinderHub! Try again soon.")
    if claim.quota and sum(other.repository == claim.repository for other in others) >= claim.quota:
        return Shortage(Kind.REPOSITORY, claim.quota, f"Too many users running {claim.url}! Try again soon.")
    return _personal(claim, others, limits)


def _personal(claim: Claim, others: Collection[Claim], limits: Limits) -> Shortage | None:
    account = (claim.subject or "").startswith("user:")
    most = (limits.user if account else limits.address) if claim.subject else 0
    if most and sum(other.subject == claim.subject for other in others) >= most:
        whose = "You have" if account else "Your address has"
        return Shortage(Kind.USER, most, f"{whose} {most} sessions here already, which is the most at once. End one, then try again.")
    for group in sorted(claim.groups & limits.groups.keys()):
        if sum(group in other.groups for other in others) >= limits.groups[group]:
            message = f"The members of {group} have {limits.groups[group]} sessions already, which is the most at once. Try again soon."
            return Shortage(Kind.GROUP, limits.groups[group], message)
    return None


@dataclass(frozen=True, slots=True)
class Held:
    """A place as it is kept over a restart.

    Attributes:
        claim: What it counts against.
        tag: Its turn, see `Turns`.
        since: When it was asked for, Unix seconds.
        granted: Taken; else waited for.
    """

    claim: Claim
    tag: float
    since: float
    granted: bool = False


@dataclass(frozen=True, slots=True)
class Waiting:
    """One who waits, for lists.

    Attributes:
        position: From 1.
        launch_id: Of the launch.
        url: Of the repository.
        subject: Who.
        since: Unix seconds.
        waiting_for: What is lacking.
        present: Whether somebody is connected.
    """

    position: int
    launch_id: str
    url: str
    subject: str | None
    since: float
    waiting_for: str
    present: bool


@dataclass(slots=True)
class Turns:
    """The common clock of those who wait, and when each of them is due next.

    Attributes:
        clock: Moves on with every start.
        due: Subject → tag of its last ticket.
    """

    clock: float = 0.0
    due: dict[str, float] = field(default_factory=dict)

    def tag(self, subject: str) -> float:
        """The tag of one more ticket of somebody."""
        mine = max(self.clock, self.due.get(subject, -1.0) + 1.0)
        self.due[subject] = mine
        return mine

    def served(self, waiting: int) -> None:
        """One of so many who wait has been served."""
        self.clock += 1.0 / max(1, waiting)
        self.due = {subject: tag for subject, tag in self.due.items() if tag + 1.0 > self.clock}

    def taken_up(self, tags: Iterable[tuple[str, float]]) -> None:
        """Go on after a restart, from the tags that were given before it."""
        first: dict[str, float] = {}
        for subject, tag in sorted(tags, key=lambda pair: pair[1]):
            first.setdefault(subject, tag)
            self.due[subject] = tag
        # Whoever came last had his first tag from the clock: it stood there at least.
        self.clock = max(self.clock, max(first.values(), default=0.0))
