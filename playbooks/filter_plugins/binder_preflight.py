"""What `preflight` makes of the facts of a host: pure decisions, each finding with its fix."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Facts = dict[str, Any]
Finding = dict[str, str]

GIB = 1024**3
DAY = 86400
SYSTEMS = {"debian": 12, "ubuntu": 24}
"""Distribution and the first version of it that has what is needed."""
SKEW = 5
"""Seconds that clocks may differ: TLS, tokens and etcd stand more, people who read logs do not."""
INODES = 0.9
MTU = 1280
"""Bytes; with flannel's 50 less than this, IPv6 and many campus tunnels break."""
PODMAN = (4, 3)
POSTGRESQL = 13
"""What drops a database with who is connected."""
KUBERNETES = frozenset({"k3s_server", "k3s_agent"})
WATCHERS = 512
"""Instances of inotify below which a node of many pods fails with "too many open files"."""
BUILDERS = frozenset({"builder", "control"})


def finding(level: str, subject: str, text: str, fix: str = "") -> Finding:
    """One line of the report."""
    return {"level": level, "subject": subject, "text": text, "fix": fix}


def binder_findings(facts: Facts, wanted: Facts, cluster: dict[str, Facts] | None = None) -> list[Finding]:
    """Judge a host.

    Args:
        facts: What the module `binder_host` has found.
        wanted: ``groups`` the host is in, ``ports`` ({port: unit that may have it}), ``port_sets`` (the same for each part by itself), ``open``
            (ports and whom they are for), ``firewall`` (whether `site` manages it), ``artifacts`` and ``artifacts_missing`` (k3s's release on the
            controller, and what it lacks for this host's processor), ``paths`` ({path: bytes needed}), ``memory`` (bytes), ``modules``, ``days``
            (until a certificate's end is soon), ``heard`` (the controller's clock when the facts were there).
        cluster: Facts of all hosts by name, for what has to be different on each.
    """
    # Where one of the hosts is new, `site` has yet to make what it brings: the registry may be that host.
    first = not all(one["ours"] for one in (facts, *(cluster or {}).values()))
    return [found for judge in JUDGES for found in judge(facts, {**wanted, "first": first})] + list(_unique(facts, cluster or {}))


def _system(facts: Facts, _wanted: Facts) -> Iterator[Finding]:
    system = facts["system"]
    first = SYSTEMS.get(system["id"])
    text = f"{system['name']}, kernel {system['kernel']}, {system['arch']}"
    if first is None or int((system["version"] or "0").split(".")[0]) < first:
        yield finding("fail", "system", text, "Install Debian 12 or later, or Ubuntu 24.04 or later, on this host.")
    elif system["arch"] not in ("x86_64", "aarch64"):
        yield finding("fail", "system", text, "Take a host with an x86_64 or aarch64 processor.")
    else:
        yield finding("ok", "system", text)
    if system["init"] != "systemd":
        yield finding("fail", "init", f"PID 1 is {system['init']}", "Boot this host with systemd; every part is a unit of it.")
    if not facts["root"]:
        yield finding("fail", "root", "tasks run without root", "Let the account use sudo (ansible_become: true) or connect as root.")


def _room(facts: Facts, wanted: Facts) -> Iterator[Finding]:
    memory, needed = facts["memory"], wanted["memory"]
    text = f"{memory / GIB:.1f} GiB of memory"
    if memory < needed:
        yield finding("fail", "memory", text, f"Give this host {needed / GIB:.0f} GiB at least; sessions need theirs on top.")
    else:
        yield finding("ok", "memory", text)
    if facts["swap"] and KUBERNETES & set(wanted["groups"]):
        fix = "Turn it off (swapoff -a, and its line in /etc/fstab): memory limits of sessions do not hold with swap."
        yield finding("warn", "swap", f"{facts['swap'] / GIB:.1f} GiB of swap", fix)
    if facts["watchers"] < WATCHERS and KUBERNETES & set(wanted["groups"]):
        text = (
            f"root may watch files {facts['watchers']} times (fs.inotify.max_user_instances): kubelet and containerd run out of that with many pods"
        )
        fix = "Raise it: echo fs.inotify.max_user_instances=8192 >/etc/sysctl.d/90-inotify.conf && sysctl --system"
        yield finding("warn", "inotify", text, fix)
    for path, least in wanted["paths"].items():
        disk = facts["disks"][path]
        text = f"{disk['free'] / GIB:.1f} GiB free below {path}"
        if disk["free"] < least:
            yield finding("fail", "disk", text, f"Make {least / GIB:.0f} GiB free there, or mount a larger disk at {path}.")
        elif disk["inodes_used"] > INODES:
            yield finding(
                "fail",
                "inodes",
                f"{disk['inodes_used']:.0%} of inodes used below {path}",
                "Remove small files there, or make the file system anew with more.",
            )
        else:
            yield finding("ok", "disk", text)


def _cgroups(facts: Facts, wanted: Facts) -> Iterator[Finding]:
    cgroup = facts["cgroup"]
    lacking = {"memory", "pids", "cpu"} - set(cgroup["controllers"])
    text = f"version {cgroup['version']}"
    if lacking:
        fix = f"Boot with the kernel's {', '.join(sorted(lacking))} controller (cgroup_enable=memory on some boards); without it no limit holds."
        yield finding("fail", "control groups", f"{text} without {', '.join(sorted(lacking))}", fix)
    elif cgroup["version"] == 1 and KUBERNETES & set(wanted["groups"]):
        fix = "Boot with systemd.unified_cgroup_hierarchy=1 when you can; until then k3s from 1.35 on is told to accept it (fail-cgroupv1=false)."
        yield finding("warn", "control groups", text, fix)
    else:
        yield finding("ok", "control groups", text)


def _modules(facts: Facts, wanted: Facts) -> Iterator[Finding]:
    states = {name: facts["modules"].get(name, "missing") for name in wanted["modules"]}
    missing = sorted(name for name, state in states.items() if state == "missing")
    if missing:
        fix = (
            f"Install the distribution's full kernel (linux-image-amd64 instead of -cloud or a container host's), then: modprobe {' '.join(missing)}"
        )
        yield finding("warn", "kernel modules", f"not loaded and not loadable: {', '.join(missing)}", fix)
    elif states:
        yield finding("ok", "kernel modules", ", ".join(f"{name} {state}" for name, state in states.items()))


def _ports(facts: Facts, wanted: Facts) -> Iterator[Finding]:
    wrong = {port: by for port, by in facts["taken"].items() if not re.match(wanted["ports"].get(str(port), "$"), by)}
    for port, by in sorted(wrong.items()):
        yield finding("fail", "ports", f"{port} is taken by {by}", f"Stop {by}, or choose another port in the inventory.")
    twice = _twice(wanted["port_sets"])
    for port, names in twice.items():
        yield finding("fail", "ports", f"{port} is wanted by {' and by '.join(names)}", "Give one of them another port in the inventory.")
    if not wrong and not twice:
        yield finding("ok", "ports", f"{len(wanted['ports'])} free or ours")


def _twice(sets: list[dict[str, str]]) -> dict[str, list[str]]:
    """Ports that more than one part wants: who."""
    ports = sorted({port for one in sets for port in one}, key=int)
    names = {port: sorted({one[port] for one in sets if port in one}) for port in ports}
    return {port: who for port, who in names.items() if len(who) > 1}


def _release(facts: Facts, wanted: Facts) -> Iterator[Finding]:
    if not KUBERNETES & set(wanted["groups"]):
        return
    place, missing = wanted["artifacts"], wanted["artifacts_missing"]
    if not place:
        fix = "Name in the inventory the directory on the controller with the files of a release of k3s, as for an air gap."
        yield finding("fail", "k3s release", "k3s_artifacts is not set", fix)
    elif missing:
        fix = f"Put these files of the release there; this host's processor is {facts['system']['arch']}."
        yield finding("fail", "k3s release", f"{place} on the controller lacks {', '.join(missing)}", fix)
    else:
        yield finding("ok", "k3s release", f"in {place}")


def _network(facts: Facts, wanted: Facts) -> Iterator[Finding]:
    network = facts["network"]
    if network["default_interface"]:
        yield finding("ok", "default route", f"by {network['default_interface']}, MTU {network['mtu']}")
        if network["mtu"] < MTU:
            yield finding(
                "fail", "MTU", f"{network['mtu']} on {network['default_interface']}", f"Raise it to {MTU} at least, on this host and what is between."
            )
    elif KUBERNETES & set(wanted["groups"]):
        fix = "k3s needs one to find the host's address: add the gateway, or without any a dummy interface with a route through it."
        yield finding("fail", "default route", "none", fix)
    else:
        yield finding(
            "warn", "default route", "none", "Only what has a route of its own is reached; add the gateway if package mirrors are elsewhere."
        )
    unknown = sorted(name for name, addresses in network["names"].items() if not addresses)
    if unknown:
        fix = "Enter them in DNS, or in /etc/hosts of every host."
        yield finding("fail", "names", f"do not resolve: {', '.join(unknown)}", fix)
    elif network["names"]:
        yield finding("ok", "names", f"{len(network['names'])} resolve")


def _clock(facts: Facts, wanted: Facts) -> Iterator[Finding]:
    # The host was asked between two looks at the controller's clock, which may be seconds apart on a busy machine.
    time, clock = facts["system"]["time"], facts["clock"]
    ahead, behind = time - wanted["heard"], facts["system"]["asked"] - time
    if max(ahead, behind) > SKEW:
        text = f"{max(ahead, behind):.0f} s {'ahead of' if ahead > behind else 'behind'} the controller's"
        yield finding("fail", "clock", text, "Set it, and let chrony or timesyncd keep it.")
    elif not clock["service"] and not clock["synchronised"]:
        yield finding(
            "warn", "clock", "right, but nothing keeps it so", "apt-get install systemd-timesyncd (or chrony), with the site's time server."
        )
    else:
        yield finding("ok", "clock", f"kept by {clock['service'] or 'the machine below'}")


def _confinement(facts: Facts, wanted: Facts) -> Iterator[Finding]:
    found = facts["confinement"]
    if found["selinux"] == "enforcing":
        yield _selinux(found["policies"], set(wanted["groups"]))
    yield finding("ok", "AppArmor", "enabled" if found["apparmor"] else "absent")
    yield from _firewall(found, wanted)


def _selinux(policies: list[str], groups: set[str]) -> Finding:
    """One that enforces stays so: what containers need of it has to be there."""
    lacking = [f"{name}-selinux" for name in needed_policies(groups) if name not in policies]
    if not lacking:
        return finding("ok", "SELinux", "enforcing, and stays so")
    fix = (
        f"Install {' and '.join(lacking)}: the policies by which containers run under SELinux. Debian and Ubuntu have no such packages; where you"
        " cannot have them take AppArmor, which is their own. Nothing here turns SELinux off."
    )
    return finding("fail", "SELinux", f"enforcing without the policy {', '.join(lacking)}", fix)


def needed_policies(groups: set[str]) -> list[str]:
    """Modules of SELinux's policy that a host of these groups needs."""
    return [*(["container"] if groups & (KUBERNETES | BUILDERS) else []), *(["k3s"] if groups & KUBERNETES else [])]


def _firewall(found: Facts, wanted: Facts) -> Iterator[Finding]:
    ports = "; ".join(wanted["open"]) or "nothing"
    active = next((name for name in found["firewall"] if name in ("firewalld", "ufw")), "")
    if active and not wanted["firewall"]:
        fix = f"site_firewall: true in the inventory, and site opens what is needed. By hand: {ports}; networks of pods trusted and passed on."
        yield finding("warn", "firewall", f"{active} is active", fix)
    elif active:
        yield finding("ok", "firewall", f"{active} is active; site opens in it: {ports}")
    elif found["dropping"]:
        fix = f"Let through in them: {ports}; networks of pods trusted and passed on. Nothing here changes rules that are not its own."
        yield finding("warn", "firewall", f"the host's own rules refuse by default: {', '.join(found['dropping'])}", fix)
    elif wanted["firewall"]:
        yield finding("ok", "firewall", f"none; site keeps strangers from its ports and leaves open: {ports}")
    else:
        yield finding("ok", "firewall", f"none on the host; one between hosts has to leave open: {ports}")


def _podman(facts: Facts, wanted: Facts) -> Iterator[Finding]:
    if not BUILDERS & set(wanted["groups"]):
        return
    version = facts["podman"]
    if not version:
        yield finding("ok", "podman", "not there yet; site installs it")
        return
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if numbers < PODMAN:
        yield finding("fail", "podman", version, "Install podman 4.3 or later (Debian 12, Ubuntu 24.04 have it).")
    elif numbers[0] < 5:  # noqa: PLR2004 - podman 5
        fix = "Nothing must be done. Podman 5 (Debian 13) confines builds of Dockerfiles in a user namespace."
        yield finding("warn", "podman", f"{version}: builds with a Dockerfile run with host ids and reduced capabilities", fix)
    else:
        yield finding("ok", "podman", version)


def _postgresql(facts: Facts, wanted: Facts) -> Iterator[Finding]:
    if "database" not in wanted["groups"]:
        return
    found, name = facts["postgresql"], wanted["cluster"]
    same = [version for version, cluster in found.get("clusters", []) if cluster == name]
    if not found:
        yield finding("ok", "PostgreSQL", "not there yet; site installs it")
    elif same and name not in found["ours"]:
        fix = "Choose another name for ours: postgresql_cluster. What is there is left alone."
        yield finding("fail", "PostgreSQL", f"a cluster {same[-1]}/{name} is there already that is not ours", fix)
    elif same and same[-1] not in found["programs"]:
        fix = f"Install postgresql-{same[-1]}, then, to go on to the newer one: pg_upgradecluster {same[-1]} {name}."
        yield finding("fail", "PostgreSQL", f"the programs of cluster {same[-1]}/{name} are gone", fix)
    elif not same and float(found["programs"][-1]) < POSTGRESQL:
        yield finding("fail", "PostgreSQL", found["programs"][-1], f"Install {POSTGRESQL} or later (Debian 12 has 15).")
    else:
        yield finding("ok", "PostgreSQL", f"{same[-1]}, cluster {name}" if same else f"{found['programs'][-1]}; ours gets a cluster of its own")


def _registry(facts: Facts, wanted: Facts) -> Iterator[Finding]:
    found = facts["registry"]
    if not found:
        return
    if found["state"] == "trusted":
        days = int((found["expires"] - facts["system"]["time"]) / DAY)
        fix = "" if days > wanted["days"] else "Renew it: run `site` again, or renew the site's own certificate."
        yield finding("warn" if fix else "ok", "registry", f"{found['place']} answers; its certificate holds {days} days", fix)
    elif found["state"] == "untrusted":
        fix = "`site` brings the site's CA (site_ca_file) to this host; is it the one that signed the registry's certificate?"
        yield finding(
            "warn" if wanted["first"] else "fail",
            "registry",
            f"{found['place']} shows a certificate this host does not trust ({found['why']})",
            fix,
        )
    elif wanted["first"]:
        yield finding("ok", "registry", f"{found['place']} does not answer yet; site makes it")
    else:
        yield finding(
            "fail",
            "registry",
            f"{found['place']} does not answer ({found['why']})",
            "Start it, open its port on the way, or correct site_registry_host.",
        )


def _proxy(facts: Facts, wanted: Facts) -> Iterator[Finding]:
    found = facts["proxy"]
    wrong = {
        "silent": "Start it, open its port for this host, or correct site_proxy.",
        "refuses": "Put an account that it takes into site_proxy: http://NAME:PASSWORD@HOST:PORT, in a vault.",
        "untrusted": "`site` brings the site's CA (site_ca_file) to this host; is it the one that signed the proxy's certificate?",
    }
    if found and found["state"] == "answers":
        yield finding("ok", "proxy", f"{found['place']} answers")
    elif found:
        said = {"silent": "does not answer", "refuses": "asks for an account, or refuses that of site_proxy", "untrusted": "is not trusted"}
        level = "warn" if found["state"] == "untrusted" and wanted["first"] else "fail"
        why = f" ({found['why']})" if "why" in found else ""
        yield finding(level, "proxy", f"{found['place']} {said[found['state']]}{why}", wrong[found["state"]])
    for place in facts["proxied"]:
        fix = (
            f"Add {facts['registry']['place'].rpartition(':')[0]} to no_proxy there, or take the proxy out of it: site_proxy tells whom it concerns."
        )
        level = "fail" if place.startswith("systemd") else "warn"
        yield finding(level, "proxy", f"the registry is asked through a proxy: {place} names one and no exception", fix)


def _unique(facts: Facts, cluster: dict[str, Facts]) -> Iterator[Finding]:
    for key, subject, fix in (
        ("hostname", "hostname", "hostnamectl set-hostname NAME, a different one on each host: Kubernetes knows nodes by it."),
        ("machine_id", "machine id", "On the copies: rm /etc/machine-id /var/lib/dbus/machine-id; systemd-machine-id-setup; reboot."),
    ):
        own = facts["system"][key]
        same = sorted(name for name, other in cluster.items() if other["system"][key] == own)
        if not own:
            yield finding("fail", subject, "none", fix)
        elif len(same) > 1:
            yield finding("fail", subject, f"{own} is that of {', '.join(same)}", fix)
        else:
            yield finding("ok", subject, own)


JUDGES: tuple[Callable[[Facts, Facts], Iterator[Finding]], ...] = (
    _system,
    _room,
    _cgroups,
    _modules,
    _ports,
    _release,
    _network,
    _clock,
    _confinement,
    _podman,
    _postgresql,
    _registry,
    _proxy,
)


def binder_table(found: list[Finding]) -> list[str]:
    """Findings as lines for people, what needs doing first."""
    order = {"fail": 0, "warn": 1, "ok": 2}
    rows = sorted(found, key=lambda one: order[one["level"]])
    return [f"{one['level']:<4} {one['subject']}: {one['text']}" + (f"  -> {one['fix']}" if one["fix"] else "") for one in rows]


def binder_bytes(sizes: dict[str, float]) -> dict[str, int]:
    """Paths with GiB as paths with bytes."""
    return {path: int(size * GIB) for path, size in sizes.items()}


class FilterModule:
    """What templates may use."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Names and functions."""
        return {"binder_findings": binder_findings, "binder_table": binder_table, "binder_bytes": binder_bytes}
