"""Findings about configuration and host, each with what to do about it. Called by the command ``check``; changes nothing, root or not.

Every weakness of a machine is said here in plain words: nothing is silently weaker.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, Final, Literal

from binder_onprem.engine.offered import missing, unreadable
from binder_onprem.errors import BinderError
from binder_onprem.host import (
    builderhosts,
    buildservice,
    clustercheck,
    credentials,
    firewall,
    ground,
    loginfiles,
    parts,
    place,
    pool,
    ports,
    probes,
    projectroom,
    reach,
    remoteregistry,
    settingfiles,
    sources,
)
from binder_onprem.host import machine as host
from binder_onprem.host.finding import Finding
from binder_onprem.host.supervision import supervision

if TYPE_CHECKING:
    from collections.abc import Iterator

    from binder_onprem.config import Config
    from binder_onprem.host.machine import Host

GIB: Final = 1024**3
PODMAN: Final = (4, 3)
"""What this was tried with."""
PODMAN_BUILDS: Final = (5, 7, 1)
"""Older ones have known faults with hostile Dockerfiles."""
OPEN_FILES: Final = 4096


def findings(config: Config) -> list[Finding]:
    """Look at everything; takes a second or two, and ten more where a package source does not answer."""
    facts = host.look(config.home)
    files = (*loginfiles.findings(config), *settingfiles.findings(config), *projectroom.findings(config, facts.disk))
    settings = (*_settings(config), *buildservice.findings(config), *_choices(config, facts), *files)
    return [*_software(facts), *_kernel(facts), *_room(facts), *settings, *_network(config, facts), *_running(config, facts)]


def _choices(config: Config, facts: Host) -> Iterator[Finding]:
    """What links may choose, but this machine does not have."""
    for name, data in config.choice.data.items() if config.cluster is None else ():
        if why := unreadable(data, parents=facts.runtime != "runc"):
            yield Finding("warn", f"choice.data.{name}", f"{data.path}: {why}", "Sessions run as nobody of this machine: let others read it.")
    for name, profile in config.choice.profiles.items():
        if missing(profile, ()):
            text = f"a device of {', '.join(profile.devices)} is not here: no file in /dev, or no CDI description in /etc/cdi"
            yield Finding(
                "warn", f"choice.profiles.{name}", text, "Install its driver and have it described (nvidia-ctk cdi generate), or take it away."
            )


def _software(facts: Host) -> Iterator[Finding]:
    for name in facts.missing:
        yield Finding("fail", name, "is not installed", f"make up, or: apt-get install {host.PACKAGES.get(name, name)}")
    version = ".".join(map(str, facts.podman)) or "none"
    if facts.podman < PODMAN:
        yield Finding("fail", "podman", f"version {version} is too old", "Use Debian 12, Ubuntu 24.04 or newer.")
    elif facts.podman < PODMAN_BUILDS:
        text = f"version {version} has known faults with hostile Dockerfiles (fixed in 5.7.1, unless the distribution has patched it)"
        yield Finding("warn", "podman", text, "Update the distribution, or set build.dockerfiles: false.")
    else:
        yield Finding("ok", "podman", version)
    if facts.runtime:
        yield Finding("ok", "OCI runtime", facts.runtime)
    else:
        yield Finding("fail", "OCI runtime", "neither crun nor runc is installed", "apt-get install runc crun")
    yield Finding("ok", "supervisor", "systemd" if facts.systemd else "supervisord (PID 1 is not systemd); after a reboot run `binder-onprem up`")


def _kernel(facts: Host) -> Iterator[Finding]:
    if facts.cgroups == "v2":
        yield Finding("ok", "control groups", "version 2")
    else:
        text = f"version 1 ({facts.cgroups}): runc is used; limits on memory, CPU and processes hold, limits on disk bandwidth do not"
        yield Finding("warn", "control groups", text, "Boot with systemd.unified_cgroup_hierarchy=1.")
    if facts.maps_layers:
        yield Finding("ok", "kernel", ".".join(map(str, facts.kernel)))
    else:
        text = f"{'.'.join(map(str, facts.kernel))} copies an image's layers for each user namespace: the first starts of an image are slow"
        yield Finding("warn", "kernel", text, "Use Linux 5.19 or newer.")
    if facts.open_files < OPEN_FILES:
        yield Finding("warn", "open files", f"the hard limit is {facts.open_files}", "Raise it to 65536 for the process that runs this.")
    if facts.filesystem in ("overlay", "nfs", "nfs4", "fuse", "9p"):
        yield Finding("fail", "file system", f"{facts.filesystem} cannot hold containers' storage", "Put BINDER_ONPREM_HOME on ext4 or xfs.")
    if facts.subids:
        yield Finding("ok", "user namespaces", f"{facts.subids // 65536} containers at once with ids of their own")
    else:
        yield Finding(
            "warn", "user namespaces", "no ids are set aside for containers yet", "`binder-onprem up` adds them to /etc/subuid and /etc/subgid."
        )


def _room(facts: Host) -> Iterator[Finding]:
    memory, disk = facts.memory / GIB, facts.disk / GIB
    yield Finding("ok" if memory >= 4 else "warn", "memory", f"{memory:.0f} GiB", "" if memory >= 4 else "One session may use session.memory.")  # noqa: PLR2004
    level: Literal["ok", "warn", "fail"] = "ok" if disk >= 20 else "warn" if disk >= 5 else "fail"  # noqa: PLR2004
    yield Finding(level, "disk", f"{disk:.0f} GiB free", "" if level == "ok" else "Images need tens of GiB: free some, or lower images.budget.")


def _settings(config: Config) -> Iterator[Finding]:
    yield Finding("ok", "settings", f"home {config.home}, {'builds for another machine' if config.building_for else config.public_url}")
    if objection := place.objection(config.home):
        what, _, fix = objection.partition(". ")
        yield Finding("fail", "home", what, fix)
    try:
        found = sources.read(config)
    except BinderError as error:
        yield Finding("fail", "package sources", error.message, "")
        return
    if found.apt:
        yield Finding("ok", "package sources", ", ".join(sorted({name for name, _ in found.hosts})))
    else:
        text = "apt has no archive of this distribution's release configured"
        yield Finding("fail", "package sources", text, "Set mirrors.apt, or build.base to the release that apt knows.")
    yield from reach.findings(found)
    if found.on_loopback:
        text = f"{', '.join(found.on_loopback)} is this machine's own loopback: builds have that mirror through the gate, sessions cannot reach it"
        yield Finding("warn", "mirrors", text, "Put the mirror on a machine that sessions reach, if people install packages in them.")
    if not probes.free(config.session_address, 0):
        text = f"{config.session_address} is not an address of this machine, and sessions are published on it"
        yield Finding("fail", "loopback", text, "Give the interface lo its whole range: ip address add 127.0.0.1/8 dev lo")
    if not _loopback(config.listen.host) and not config.listen.public_url:
        text = f"people reach http://{config.listen.host}:{config.listen.port} without encryption"
        yield Finding("warn", "listen", text, "Put a proxy with TLS in front, set listen.public_url and listen.trusted_proxies.")
    if not _loopback(config.listen.host) and any(entry.startswith("127.") for entry in config.network.allow):
        text = "links may name this machine's own loopback addresses, and others can reach this site"
        yield Finding("warn", "network.allow", text, "Take 127.0.0.0/8 away.")


def _network(config: Config, facts: Host) -> Iterator[Finding]:
    if not firewall.resolvers():
        text = "the only name server is on loopback, which containers cannot reach"
        yield Finding("warn", "name server", text, "Give /etc/resolv.conf (or systemd-resolved) an address that other machines reach.")
    if used := pool.conflict(config):
        yield Finding("fail", "network.pool", used, pool.FIX)
    else:
        yield Finding("ok", "network.pool", config.network.pool)
    if facts.root and facts.open_files and not ground.lies(config):
        yield Finding("warn", "firewall", "the rules are not in place", "binder-onprem up")
    elif facts.root:
        sessions = "what the namespace's policies let them" if config.cluster else config.network.sessions
        yield Finding("ok", "firewall", f"sessions reach: {sessions}; builds: {config.network.builds}")
    else:
        yield Finding("warn", "firewall", "only root can see the rules", "Run it with sudo.")


def _running(config: Config, facts: Host) -> Iterator[Finding]:
    if not facts.root:
        return
    yield from credentials.findings(config)
    yield from remoteregistry.findings(config)
    yield from builderhosts.findings(config)
    yield from clustercheck.findings(config)
    states = supervision(config, facts).states()
    if taken := ports.taken(config, {name for name, status in states.items() if status.alive}):
        yield Finding("fail", "ports", ports.advice(taken), "ss -ltnp tells which program it is")
    if not states:
        yield Finding("warn", "parts", "nothing runs", "binder-onprem up")
        return
    for part in parts.parts(config):
        state = states[part.name].state if part.name in states else "stopped"
        if part.name == "registry" and (refused := credentials.registry(config)):
            yield refused
        elif probes.answers(part):
            yield Finding("ok", part.name, "answers")
        else:
            yield Finding("fail", part.name, f"does not answer ({state})", f"See {config.logs / 'parts'} or the journal, then: binder-onprem up")


def _loopback(address: str) -> bool:
    return address == "localhost" or ip_address(address).is_loopback
