"""What roles need in files: password hashes as the registry has them, checksums as a release has them."""

from __future__ import annotations

import hashlib
import ipaddress
from typing import Any

from ansible.errors import AnsibleFilterError

ALPHABET = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
"""Of bcrypt's salts."""
ROUNDS = 4
"""The passwords have 256 random bits, which no number of rounds makes safer; the registry checks one at every request."""


def binder_htpasswd(password: str, user: str) -> str:
    """A line of an htpasswd file. The same password gives the same line, so that a second run changes nothing."""
    try:
        import bcrypt  # noqa: PLC0415 - the sentence below is for who runs the playbooks with another Python
    except ImportError as error:
        raise AnsibleFilterError("Python's bcrypt is missing on the controller: pip install bcrypt, or use the Python of binder-onprem.") from error
    digest = hashlib.sha256(f"{user}:{password}".encode()).digest()
    # The last of 22 characters has two bits only.
    salt = "".join(ALPHABET[byte & 63] for byte in digest[:21]) + ALPHABET[(digest[21] & 3) << 4]
    return f"{user}:{bcrypt.hashpw(password.encode(), f'$2b${ROUNDS:02}${salt}'.encode()).decode()}"


def binder_sums(text: str) -> dict[str, str]:
    """A file of checksums, as sha256sum writes it: name → digest."""
    pairs = (line.split(maxsplit=1) for line in text.splitlines() if line.strip())
    return {name.strip().lstrip("*"): digest for digest, name in pairs}


def binder_node_addresses(pods: str) -> list[str]:
    """The addresses that a node of k3s itself has in its network of pods: what comes from the node to a pod comes from one of them."""
    network = ipaddress.ip_network(pods)
    return [f"{network[0]}/{network.max_prefixlen}", f"{network[1]}/{network.max_prefixlen}"]


class FilterModule:
    """What templates may use."""

    def filters(self) -> dict[str, Any]:
        """Names and functions."""
        return {"binder_htpasswd": binder_htpasswd, "binder_sums": binder_sums, "binder_node_addresses": binder_node_addresses}
