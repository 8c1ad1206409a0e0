"""A person's project: a home that lasts from session to session. Values and pure decisions; `projects` carries them out.

A project belongs to one person and one repository: what is in it is read by whatever the repository's sessions run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from binder_onprem.errors import InvalidSpec, QuotaExceeded, Refused

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

FIRST_ID: Final = 0x60000000
"""Where the ids of projects begin on the host: in the range that systemd leaves to containers, beyond that of throw-away sessions."""
IDS: Final = 65536
"""Of each project."""
SLOTS: Final = 4096
"""Projects of one site at the most: so many ranges of ids there are."""
FILES: Final = "mounted/home"
"""Below a volume's directory: what is the session's home. It is there only while the volume is mounted."""
HOME: Final = 1000
"""Characters of the path of a home."""
FULL: Final = 4 * 1024**2
"""Bytes with less than which a session can hardly be used."""
_KERNELS: Final = frozenset({"proc", "sys", "dev"})


@dataclass(frozen=True, slots=True)
class Project:
    """One project.

    Attributes:
        id: 16 hex digits, random; names its volume.
        owner: The person.
        name: As in the link; her own for it.
        slot: Which range of ids its files have.
        size: Bytes that it can hold.
        provider, path: The link that it was made by, raw.
        repo_url: Its repository.
        commit: What it was last opened with.
        persistent: Link to that, ``gh/owner/name/<commit>``.
        image: ``…@sha256:…`` that it was last started from; "" before.
        created, used: Unix seconds, UTC.
        bytes: In use when that was last looked at.
        made: Its volume has been made.
        leaving: It is being removed.
    """

    id: str
    owner: str
    name: str
    slot: int
    size: int
    provider: str
    path: str
    repo_url: str
    commit: str
    persistent: str
    image: str
    created: float
    used: float
    bytes: int = 0
    made: bool = False
    leaving: bool = False

    @property
    def newest(self) -> str:
        """The link that leads to what its branch has now."""
        return f"{self.provider}/{self.path}"


def first_id(slot: int) -> int:
    """The host's id of a project's user 0."""
    return FIRST_ID + slot * IDS


def on_disk(size: int) -> int:
    """Bytes of the file of a volume that holds `size`: what the file system needs for itself comes to that."""
    return size + size // 16 + 16 * 1024**2


def free_slot(taken: Collection[int]) -> int:
    """The smallest that nobody has. Raises `QuotaExceeded`."""
    found = next((slot for slot in range(SLOTS) if slot not in taken), None)
    if found is None:
        raise QuotaExceeded("This site has as many projects as it can have. Ask the administrator.")
    return found


def home_of(configuration: Mapping[str, object]) -> str:
    """The directory of an image that a project takes the place of: where its sessions begin.

    Args:
        configuration: The image's ``Config``.

    Raises:
        InvalidSpec: It has none that could be kept.
    """
    home = str(configuration.get("WorkingDir") or "")
    parts = [part for part in home.split("/") if part]
    if not home.startswith("/") or not parts or ".." in parts or parts[0] in _KERNELS or not home.isprintable() or len(home) > HOME:
        raise InvalidSpec("The image of this repository has no home that could be kept: its Dockerfile needs a WORKDIR below the root.")
    return "/" + "/".join(parts)


def asks_first(project: Project, link: str) -> bool:
    """Whether a link (``provider/spec``) leads to what its person has not opened it with herself: neither its own link nor its last commit."""
    return link not in (project.newest, project.persistent)


def admit(found: Project | None, repo_url: str) -> None:
    """Whether a launch of this repository may have its owner's project. Raises `Refused`."""
    if found is None:
        return
    if found.leaving:
        raise Refused(f"The project {found.name} is being deleted. Choose another name, or try again in a minute.")
    if found.repo_url != repo_url:
        raise Refused(
            f"Your project {found.name} belongs to {found.repo_url[:300]}: another repository's sessions do not get its files. Choose another name."
        )


def admit_new(owner: str, size: int, projects: Sequence[Project], *, most: int, total: int) -> None:
    """Whether there is room for one more.

    Args:
        owner: The person.
        size: Bytes that it is to hold.
        projects: All there are.
        most: One person may have.
        total: Bytes that all may take when they are full: nobody's session may find the disk full while its own quota is not.

    Raises:
        QuotaExceeded: There is none.
    """
    own = sum(project.owner == owner for project in projects)
    if own >= most:
        raise QuotaExceeded(f"You have {own} projects, and may have {most}. Delete one on the page of your projects.")
    if sum(on_disk(project.size) for project in projects) + on_disk(size) > total:
        raise QuotaExceeded("There is no room for one more project on this site. Delete one that you no longer need, or ask the administrator.")
