"""What can be done to a site: one playbook each, of the same name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from binder_onprem.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Verb:
    """One playbook.

    Attributes:
        text: What it does, in a line.
        sure: The variable that says it is meant; "" where nothing is removed.
    """

    text: str
    sure: str = ""


VERBS: Final[Mapping[str, Verb]] = {
    "preflight": Verb("look at every host, change nothing: what passes, warns, fails, each with its fix"),
    "site": Verb("bring the hosts to what the inventory says; run again: changes nothing"),
    "bundle": Verb("collect, on this machine, what site needs where no host reaches the Internet"),
    "status": Verb("one screen: what runs on each host and how it does, what to do where it does not"),
    "support": Verb("one archive for a bug report, beside the inventory: versions, states, journals, settings, without secrets"),
    "canary": Verb("launch through the public port, let a kernel calculate, end it: whether all of it works"),
    "upgrade": Verb("another version of k3s, node by node: snapshot first, sessions may end, on failure it stops"),
    "add": Verb("a host that is new in the inventory joins: preflight, then site, for --limit alone"),
    "remove": Verb("a node leaves: its sessions may end, k3s goes from the host, the cluster forgets it", "remove_sure"),
    "backup": Verb("an encrypted archive of each host's state, read again with its key, and a copy of it here"),
    "restore": Verb("archives back onto bare hosts, then site; overwrites what lives with -e restore_sure=true alone"),
    "certificates": Verb("make anew what ends within 90 days, node by node; then tell what there is"),
    "reset": Verb("remove from the hosts exactly what site has put there, images and settings too", "reset_sure"),
}


def playbooks(given: Path | None) -> Path:
    """The directory of the playbooks: the given one, that of this checkout, or that below the current directory.

    Raises:
        ConfigError: There is none.
    """
    places = [given] if given else [Path(__file__).parents[2] / "playbooks", Path.cwd() / "playbooks"]
    for place in places:
        if (place / "site.yml").is_file():
            return place.absolute()
    raise ConfigError(f"No playbooks in {' or '.join(map(str, places))}. Run this in a checkout of binder-onprem, or give --playbooks.")
