"""Where a site's things are: state, ports, images, sessions. What must agree between processes is derived here and nowhere else."""

from __future__ import annotations

import ipaddress
from pathlib import Path

from pydantic import Field, field_validator

from binder_onprem.config.frozen import Frozen
from binder_onprem.config.registry import LocalRegistry, Registry, RemoteRegistry
from binder_onprem.config.sections import Listen, Network
from binder_onprem.config.sessions import KubernetesSessions, PodmanSessions, Sessions

DEFAULT_HOME = Path("/var/lib/binder-onprem")
SESSIONS_LOOPBACK = ipaddress.IPv4Network("127.213.0.0/16")
"""Sessions' ports are published on an address in here, and no link or build ever reaches it, whatever is allowed."""


class Places(Frozen):
    """The settings that say where, and what follows from them."""

    home: Path = Field(default=DEFAULT_HOME, description="directory of all state")
    listen: Listen = Listen()
    network: Network = Network()
    sessions: Sessions = Field(default=PodmanSessions(), description="kind: podman or kubernetes: where sessions run; see SETTINGS.md")
    registry: Registry = Field(default=LocalRegistry(), description="kind: local or remote: where images are kept; see SETTINGS.md")

    @field_validator("home")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.absolute()

    @property
    def public_url(self) -> str:
        """What people type, ends with ``/``."""
        if self.listen.public_url:
            return self.listen.public_url.rstrip("/") + "/"
        host = f"[{self.listen.host}]" if ":" in self.listen.host else self.listen.host
        return f"http://{host}:{self.listen.port}{self.listen.base_url}"

    # Ports on loopback, one after the other behind the public one.
    @property
    def proxy_api_port(self) -> int:
        """configurable-http-proxy's own API."""
        return self.listen.port + 1

    @property
    def hub_port(self) -> int:
        """JupyterHub."""
        return self.listen.port + 2

    @property
    def daemon_port(self) -> int:
        """Our daemon, the proxy's default target."""
        return self.listen.port + 3

    @property
    def registry_port(self) -> int:
        """The image registry."""
        return self.listen.port + 4

    @property
    def samples_port(self) -> int:
        """The git server with the sample repository."""
        return self.listen.port + 5

    @property
    def gate_port(self) -> int:
        """The egress gate's TCP side, on `gate_address`."""
        return self.listen.port + 6

    @property
    def hub_base_url(self) -> str:
        """The hub's prefix on the public port; sessions live below it."""
        return f"{self.listen.base_url}jupyter/"

    @property
    def cluster(self) -> KubernetesSessions | None:
        """The Kubernetes that sessions run in; None where they run here."""
        return self.sessions if isinstance(self.sessions, KubernetesSessions) else None

    @property
    def remote(self) -> RemoteRegistry | None:
        """The registry on another machine; None where it is ours, on loopback."""
        return self.registry if isinstance(self.registry, RemoteRegistry) else None

    @property
    def registry_host(self) -> str:
        """``host:port`` of the registry."""
        return self.remote.address if self.remote else f"127.0.0.1:{self.registry_port}"

    @property
    def registry_url(self) -> str:
        """``http://127.0.0.1:port``, or ``https://host:port``."""
        return f"{'https' if self.remote else 'http'}://{self.registry_host}"

    @property
    def registry_ca(self) -> Path | None:
        """PEM bundle that a remote registry's certificate is trusted by; None for the host's."""
        return (self.remote.ca_file if self.remote else None) or self.network.ca_file

    @property
    def push_account(self) -> Path:
        """File with ``user:password`` of the account that images are pushed with."""
        return self.remote.push_account_file if self.remote else self.secrets / "registry-account"

    @property
    def pull_account(self) -> Path:
        """The same for sessions' images being pulled."""
        return self.remote.pull_account_file if self.remote else self.secrets / "registry-account"

    @property
    def image_prefix(self) -> str:
        """What every image of ours begins with."""
        return f"{self.registry_host}/binder"

    @property
    def session_network(self) -> ipaddress.IPv4Network:
        """Lower half of the pool: sessions."""
        return next(ipaddress.IPv4Network(self.network.pool).subnets(prefixlen_diff=1))

    @property
    def session_address(self) -> str:
        """The first of the loopback addresses that sessions' ports are published on, for the proxy, the hub and the daemon."""
        return str(SESSIONS_LOOPBACK[1])

    @property
    def build_network(self) -> ipaddress.IPv4Network:
        """Third quarter of the pool: builds by podman, which reach nothing but the gate."""
        return list(ipaddress.IPv4Network(self.network.pool).subnets(prefixlen_diff=2))[2]

    @property
    def gate_address(self) -> str:
        """The last usable address of the pool; it lies on the host's loopback interface, so it is there without any container."""
        return str(ipaddress.IPv4Network(self.network.pool)[-2])

    @property
    def run(self) -> Path:
        """Sockets and pid files."""
        return self.home / "run"

    @property
    def secrets(self) -> Path:
        """Secret files, directory 0700, files 0600."""
        return self.home / "secrets"

    @property
    def kept(self) -> Path:
        """Changed files of sessions that have ended; directory 0700."""
        return self.home / "kept"

    @property
    def project_volumes(self) -> Path:
        """Volumes of people's projects; directory 0700."""
        return self.home / "projects"

    @property
    def logs(self) -> Path:
        """Log files of the parts, and builds' logs below ``builds/``."""
        return self.home / "logs"

    @property
    def podman_socket(self) -> Path:
        """The engine's API."""
        return self.run / "podman.sock"

    @property
    def builder_socket(self) -> Path:
        """Where a machine that builds for another one answers on itself, too."""
        return self.run / "builder.sock"

    @property
    def gate_socket(self) -> Path:
        """Directory that holds the unix socket (``gate.sock``) of the builds' egress gate; mounted into containers of layers."""
        return self.run / "gate"

    @property
    def clone_gate_socket(self) -> Path:
        """The same for the gate of clones, which follows the rules of links and not ``network.builds``; mounted into sandboxes."""
        return self.run / "clone-gate"
