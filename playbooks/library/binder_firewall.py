#!/usr/bin/python
"""The host's firewall lets through what the site needs, by what the host already uses: firewalld, ufw, or else a table of nftables of our own.

The table closes nothing but the site's own ports, to those who have no business there. Where firewalld or ufw refuse by default, only permissions are
added. Neither can keep out who is connected; all the same a table stands for some time only, until a new connection has said `kept`.
"""

from __future__ import annotations

import ipaddress
import json
import os
import shlex
import subprocess
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

RECORD = Path("/var/lib/binder-deploy/firewall.json")
"""What is ours: the kind of firewall, and the permissions that were added to it."""
FOLDER = Path("/etc/binder-firewall")
RULES = FOLDER / "site.nft"
TABLE = "binder_site"
UNIT = Path("/etc/systemd/system/binder-site-firewall.service")
UNDO = "binder-site-firewall-undo"
COMMENT = "binder-site"
STARTING_SECONDS = 30
ANYONE = "anyone"
CONTROLLER = "controller"
SERVICE = f"""# Written by `binder-onprem deploy site`; changes are lost. Keeps strangers from the site's own ports.
[Unit]
Description=Firewall of the Binder's site
DefaultDependencies=no
Wants=network-pre.target
Before=network-pre.target shutdown.target
Conflicts=shutdown.target
# That one empties everybody's rules when it starts.
After=local-fs.target nftables.service
PartOf=nftables.service
ReloadPropagatedFrom=nftables.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/sbin/nft -f {RULES}
ExecReload=/usr/sbin/nft -f {RULES}
ExecStop=-/usr/sbin/nft delete table inet {TABLE}

[Install]
WantedBy=sysinit.target
"""


class Refused(Exception):
    """A program of the host's firewall says no."""


def said(*command: str, given: str = "") -> str | None:
    """What a program prints; None where it is missing or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, input=given)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def run(*command: str, given: str = "") -> str:
    """The same where it has to succeed."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, input=given)
    if done.returncode:
        raise Refused(f"{shlex.join(command)}: {(done.stderr or done.stdout).strip()[-2000:]}")
    return done.stdout


def kind() -> str:
    """Which firewall the host uses. One that has just been started is waited for: taken for none, it would refuse what a table lets through."""
    end = time.monotonic() + STARTING_SECONDS
    while (said("systemctl", "is-active", "firewalld") or "").strip() == "active":
        if (said("firewall-cmd", "--state") or "").strip() == "running":
            return "firewalld"
        if time.monotonic() > end:
            raise Refused("firewalld.service is active, and firewall-cmd --state does not say that it is running. Look at its journal, or stop it.")
        time.sleep(0.5)
    if "Status: active" in (said("ufw", "status") or ""):
        return "ufw"
    return "nftables"


def connection() -> tuple[str, str]:
    """Where the connection comes from that this runs by, and ssh's port here; "" where there is none. sudo hides it from what it starts."""
    process = os.getpid()
    while process > 1:
        try:
            variables = Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
            words = next((line for line in variables if line.startswith(b"SSH_CONNECTION=")), b"").decode().partition("=")[2].split()
            if len(words) == 4:  # noqa: PLR2004 - address and port of both ends
                return words[0], words[3]
            process = int(Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            break
    return "", ""


def merged(sources: list[str], controller: str) -> list[str]:
    """Sources as the fewest networks, without overlaps; [] for anyone."""
    if ANYONE in sources:
        return []
    given = (controller if source == CONTROLLER else source for source in sources)
    networks = {ipaddress.ip_network(source, strict=False) for source in given if source}
    found: list[str] = []
    for version in (4, 6):
        same = ipaddress.collapse_addresses(network for network in networks if network.version == version and not network.is_loopback)
        found += [str(network.network_address if network.prefixlen == network.max_prefixlen else network) for network in same]
    return found


def ruleset(openings: list[dict[str, Any]], controller: str, ssh: str) -> str:
    """The table as ``nft -f`` reads it, which takes the place of the one that is there at once.

    What is accepted here goes on to the other tables; what is refused is refused whatever they say.
    """
    lines = ["ct state established,related accept", 'iifname "lo" accept']
    if ssh:
        lines.append(f"tcp dport {ssh} accept")
    for opening in openings:
        if ANYONE in opening["sources"]:
            continue
        sources = merged(opening["sources"], controller)
        port = f"{opening['protocol']} dport {opening['ports']}"
        same = {family: [source for source in sources if (":" in source) == (family == "ip6")] for family in ("ip", "ip6")}
        lines += [f"{family} saddr {{ {', '.join(some)} }} {port} accept" for family, some in same.items() if some]
        how = "reject with tcp reset" if opening["protocol"] == "tcp" else "reject with icmpx admin-prohibited"
        lines.append(f"{port} counter {how}")
    body = "\n    ".join(lines)
    return f"""# Written by `binder-onprem deploy site`; changes are lost. Refuses strangers at the site's own ports; all else is left alone.
table inet {TABLE} {{}}
delete table inet {TABLE}
table inet {TABLE} {{
  chain input {{
    type filter hook input priority -5; policy accept;
    {body}
  }}
}}
"""


def ufw_rules(asked: dict[str, Any], controller: str) -> list[str]:
    """Arguments of ufw for each permission, as ``ufw show added`` writes them, without the comment."""
    found: list[str] = []
    for opening in asked["openings"]:
        ports, protocol = opening["ports"].replace("-", ":"), opening["protocol"]
        if ANYONE in opening["sources"]:
            found.append(f"allow {ports}/{protocol}")
        found += [f"allow from {source} to any port {ports} proto {protocol}" for source in merged(opening["sources"], controller)]
    # ufw refuses what is passed on by default, which is all that pods and builds send and get.
    return [*found, *(f"route allow from {network}" for network in asked["forwarded"])]


def ufw_added() -> tuple[set[str], set[str]]:
    """Rules of the host's ufw: ours, and all, without comments."""
    ours, everything = set(), set()
    for line in run("ufw", "show", "added").splitlines():
        rule, _, comment = line.partition(" comment ")
        if rule.startswith("ufw "):
            everything.add(rule.removeprefix("ufw ").strip())
            if comment.strip("'\" ") == COMMENT:
                ours.add(rule.removeprefix("ufw ").strip())
    return ours, everything


def ufw(asked: dict[str, Any], controller: str, *, write: bool) -> bool:
    """Add what is missing, delete what is ours and no longer wanted; whether something is due."""
    wanted = ufw_rules(asked, controller)
    if "IPV6=yes" not in Path("/etc/default/ufw").read_text(encoding="utf-8"):
        wanted = [rule for rule in wanted if ":" not in rule.partition(" from ")[2].partition(" ")[0]]
    ours, everything = ufw_added()
    missing = [rule for rule in wanted if rule not in everything]
    left = sorted(ours - set(wanted))
    if write:
        for rule in missing:
            run("ufw", *rule.split(), "comment", COMMENT)
        for rule in left:
            ufw_delete(rule)
    return bool(missing or left)


def ufw_delete(rule: str) -> None:
    """Delete a rule as `ufw_added` gives it."""
    words = rule.split()
    run("ufw", *(["route", "delete", *words[1:]] if words[0] == "route" else ["delete", *words]))


def firewalld_wanted(asked: dict[str, Any], controller: str) -> list[list[str]]:
    """Zone and option of each permission. Networks of pods are trusted, as k3s's documentation has it: nothing else lets firewalld pass them on."""
    active = [line.split()[0] for line in run("firewall-cmd", "--get-active-zones").splitlines() if line and not line.startswith(" ")]
    zones = sorted({run("firewall-cmd", "--get-default-zone").strip(), *active} - {"trusted"})
    options: list[str] = []
    for opening in asked["openings"]:
        port, protocol = opening["ports"], opening["protocol"]
        if ANYONE in opening["sources"]:
            options.append(f"port={port}/{protocol}")
        for source in merged(opening["sources"], controller):
            family = "ipv6" if ":" in source else "ipv4"
            options.append(f'rich-rule=rule family="{family}" source address="{source}" port port="{port}" protocol="{protocol}" accept')
    return [[zone, option] for zone in zones for option in options] + [["trusted", f"source={network}"] for network in asked["trusted"]]


def firewalld_has(rules: list[list[str]], *words: str) -> list[list[str]]:
    """Those of the permissions that are there, now or (``--permanent``) after a restart. A network stays in the zone where the host has it."""
    there: list[list[str]] = []
    for zone in sorted({zone for zone, _ in rules} - {"trusted"}):
        rich = run("firewall-cmd", *words, f"--zone={zone}", "--list-rich-rules").splitlines()
        ports = run("firewall-cmd", *words, f"--zone={zone}", "--list-ports").split()
        there += [[zone, option] for option in (*(f"rich-rule={rule}" for rule in rich), *(f"port={port}" for port in ports))]
    sources = [rule for rule in rules if rule[0] == "trusted" and said("firewall-cmd", *words, f"--get-zone-of-{rule[1]}") is not None]
    return [rule for rule in rules if rule in there or rule in sources]


def firewalld(asked: dict[str, Any], controller: str, known: list[list[str]], *, write: bool) -> tuple[bool, list[list[str]]]:
    """The same for firewalld, now and for ever: no reload, which would take away what netavark has added for now only. What is ours then, too."""
    wanted = firewalld_wanted(asked, controller)
    now, later = firewalld_has(wanted), firewalld_has(wanted, "--permanent")
    ours = [rule for rule in wanted if rule in known or rule not in later]
    left = [rule for rule in known if rule not in wanted]
    if write and ours + left != known:
        # Written before: what is interrupted is known to be ours all the same.
        put(RECORD, json.dumps({"kind": "firewalld", "rules": ours + left}), 0o644)
    missing = {(): [rule for rule in wanted if rule not in now], ("--permanent",): [rule for rule in wanted if rule not in later]}
    if write:
        for words, rules in missing.items():
            firewalld_add(rules, *words)
        for rule in left:
            firewalld_delete(*rule)
    return any(missing.values()) or bool(left), ours


def firewalld_add(rules: list[list[str]], *words: str) -> None:
    """Add permissions, those of one zone and kind at once."""
    together: dict[tuple[str, str], list[str]] = defaultdict(list)
    for zone, option in rules:
        together[zone, option.partition("=")[0]].append(f"--add-{option}")
    for (zone, _), options in together.items():
        run("firewall-cmd", *words, f"--zone={zone}", *options)


def firewalld_delete(zone: str, option: str) -> None:
    """Take a permission back, now and for ever; absent is fine, and so is a firewalld that does not run."""
    said("firewall-cmd", f"--zone={zone}", f"--remove-{option}")
    if said("firewall-cmd", "--permanent", f"--zone={zone}", f"--remove-{option}") is None:
        said("firewall-offline-cmd", f"--zone={zone}", f"--remove-{option}")


def put(path: Path, text: str, mode: int) -> None:
    """Write a file; a power cut leaves the old or the new one."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.new")
    new.write_text(text, encoding="utf-8")
    new.chmod(mode)
    with new.open() as file:
        os.fsync(file.fileno())
    new.replace(path)


def read(path: Path) -> str:
    """A file's text; "" where there is none."""
    return path.read_text(encoding="utf-8") if path.exists() else ""


def record() -> dict[str, Any]:
    """What is ours here; {} where nothing is."""
    known: dict[str, Any] = json.loads(read(RECORD) or "{}")
    return known


def table_due(text: str) -> bool:
    """Whether the table, its file or its unit are not as they have to be."""
    if read(RULES) != text or read(UNIT) != SERVICE or said("nft", "list", "table", "inet", TABLE) is None:
        return True
    states = (said("systemctl", "show", "--property=ActiveState,UnitFileState,NeedDaemonReload", UNIT.name) or "").split()
    return set(states) != {"ActiveState=active", "UnitFileState=enabled", "NeedDaemonReload=no"}


def table_tried(text: str, seconds: int) -> None:
    """Put the table up for some seconds: then the one comes back that the file has, or none."""
    said("systemctl", "stop", f"{UNDO}.timer", f"{UNDO}.service")
    back = f"/usr/sbin/nft delete table inet {TABLE}; [ ! -e {RULES} ] || /usr/sbin/nft -f {RULES}"
    run("systemd-run", f"--unit={UNDO}", f"--on-active={seconds}", "--timer-property=AccuracySec=1s", "--collect", "/bin/sh", "-c", back)
    run("nft", "-f", "-", given=text)


def table_kept(text: str) -> None:
    """The table stays, after a boot too."""
    put(RULES, text, 0o644)
    put(UNIT, SERVICE, 0o644)
    run("systemctl", "daemon-reload")
    run("systemctl", "enable", UNIT.name)
    # The table is there all the while.
    run("systemctl", "reload-or-restart", UNIT.name)
    said("systemctl", "stop", f"{UNDO}.timer")


def absent(known: dict[str, Any], *, write: bool) -> bool:
    """Take away what is ours, of whichever kind; whether there was something."""
    rules = known.get("rules", [])
    table = UNIT.exists() or FOLDER.exists() or said("nft", "list", "table", "inet", TABLE) is not None
    added = sorted(ufw_added()[0]) if known.get("kind") == "ufw" and said("ufw", "show", "added") is not None else []
    if write:
        for rule in rules:
            firewalld_delete(*rule)
        for rule in added:
            ufw_delete(rule)
        if table:
            said("systemctl", "stop", f"{UNDO}.timer")
            said("systemctl", "disable", "--now", UNIT.name)
            said("nft", "delete", "table", "inet", TABLE)
            for path in (UNIT, RULES):
                path.unlink(missing_ok=True)
            if FOLDER.exists():
                FOLDER.rmdir()
            run("systemctl", "daemon-reload")
        RECORD.unlink(missing_ok=True)
    return bool(rules or added or table or known)


def present(asked: dict[str, Any], *, write: bool) -> dict[str, Any]:
    """Bring the host's firewall to what is asked; what was due, and whether a new connection has still to say that it is kept."""
    here, known = kind(), record()
    controller, ssh = connection()
    if asked["elsewhere"] and not known:
        return {"kind": here, "changed": False, "trying": False}
    kept = asked["state"] == "kept"
    other = bool(known) and known["kind"] != here
    rules: list[list[str]] = known.get("rules", []) if not other else []
    if here == "nftables":
        text = ruleset(asked["openings"], controller, ssh)
        due = table_due(text) or other
        if write and due and kept:
            if other:
                absent(known, write=True)
            table_kept(text)
        elif write and due:
            table_tried(text, asked["seconds"])
    else:
        if write and other:
            absent(known, write=True)
        if here == "ufw":
            due = ufw(asked, controller, write=write) or other
        else:
            due, rules = firewalld(asked, controller, rules, write=write)
            due = due or other
    trying = here == "nftables" and due and not kept
    fresh = {"kind": here, "rules": rules}
    if write and not trying and known != fresh:
        put(RECORD, json.dumps(fresh), 0o644)
    return {"kind": here, "changed": due, "trying": trying}


def main() -> None:
    """Compare, act."""
    spec = {
        "state": {"type": "str", "choices": ["present", "kept", "absent"], "default": "present"},
        "openings": {"type": "list", "elements": "dict", "default": []},
        "trusted": {"type": "list", "elements": "str", "default": []},
        "forwarded": {"type": "list", "elements": "str", "default": []},
        "elsewhere": {"type": "bool", "default": False},
        "seconds": {"type": "int", "default": 120},
    }
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True)
    try:
        if module.params["state"] == "absent":
            module.exit_json(changed=absent(record(), write=not module.check_mode))
        module.exit_json(**present(module.params, write=not module.check_mode))
    except Refused as error:
        module.fail_json(msg=f"The host's firewall refuses: {error}")


if __name__ == "__main__":
    main()
