"""What `status` makes of what runs on a host: pure decisions, each finding with what to do about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Facts = dict[str, Any]
Finding = dict[str, str]

GIB = 1024**3
DAY = 86400
FULL = 0.9
TIGHT = 0.8
"""Parts of a disk: the kubelet and the pruner begin to delete images from here on."""
EXPECTED = {
    "registry": ("binder-registry-front.service", "binder-registry-push.service", "binder-registry-pull.service", "binder-registry-collect.timer"),
    "k3s_server": ("k3s.service",),
    "k3s_agent": ("k3s-agent.service",),
}
WHERE_WANTED = ("binder-front.service", "binder-front-renew.timer")
"""Expected where they are installed: HTTPS and ACME are the site's choice."""
COLLECTION = "binder-registry-collect.service"


def finding(level: str, subject: str, text: str, fix: str = "") -> Finding:
    """One line of the screen."""
    return {"level": level, "subject": subject, "text": text, "fix": fix}


def binder_status_rows(facts: Facts, groups: list[str], days: int, node: Facts | None = None) -> list[Finding]:
    """Judge a host.

    Args:
        facts: What the module `binder_status` has found.
        groups: Groups the host is in.
        days: Until the end of a certificate, from which on it is warned of.
        node: What the cluster says of this host; None where it is no node.
    """
    rows = [*_units(facts, groups), *_disks(facts), *_certificates(facts, days), *_database(facts, groups), *_binder(facts, groups)]
    return rows + (list(_node(node)) if node is not None else [])


def _units(facts: Facts, groups: list[str]) -> Iterator[Finding]:
    states = {unit["name"]: unit["active"] for unit in facts["units"]}
    expected = [name for group in groups for name in EXPECTED.get(group, ())] + [name for name in WHERE_WANTED if name in states]
    collecting = states.get(COLLECTION) == "activating"
    for name in expected:
        state = states.get(name, "absent")
        if state == "active":
            yield finding("ok", name, "runs")
        elif name == "binder-registry-push.service" and collecting:
            yield finding("ok", name, "waits for the end of the collection; what is there is given out")
        else:
            fix = f"journalctl -u {name} -n 50, then: systemctl start {name}" if state != "absent" else "Run site: this host has not got it."
            yield finding("fail", name, state, fix)
    for name, state in states.items():
        if state == "failed" and name not in expected:
            yield finding("fail", name, "failed", f"journalctl -u {name} -n 50")


def _disks(facts: Facts) -> Iterator[Finding]:
    for path, disk in facts["disks"].items():
        text = f"{disk['used']:.0%} used, {disk['free'] / GIB:.0f} GiB free"
        if max(disk["used"], disk["inodes"]) > FULL:
            text += f", {disk['inodes']:.0%} of inodes" if disk["inodes"] > FULL else ""
            yield finding(
                "fail", path, text, "Make room: binder-onprem images prune on the control host, then the registry's collection; or a larger disk."
            )
        elif disk["used"] > TIGHT:
            yield finding("warn", path, text, "Plan more room, or a smaller images.budget.")
        else:
            yield finding("ok", path, text)


def _certificates(facts: Facts, days: int) -> Iterator[Finding]:
    if not facts["certificates"]:
        return
    path, end = min(facts["certificates"].items(), key=lambda one: one[1])
    left = int((end - facts["now"]) // DAY)
    text = f"{len(facts['certificates'])}; the first to end is {path}, in {left} days"
    if left < days:
        yield finding("fail" if left < 1 else "warn", "certificates", text, "binder-onprem deploy certificates -i INVENTORY")
    else:
        yield finding("ok", "certificates", text)


def _database(facts: Facts, groups: list[str]) -> Iterator[Finding]:
    if "database" not in groups:
        return
    found = facts["database"]
    if found is None:
        yield finding("fail", "database", "is not there", "Run site.")
    elif not found["told"]:
        unit = f"postgresql@{found['cluster'].replace('/', '-')}"
        fix = f"journalctl -u {unit} -n 20, /var/log/postgresql/{unit.replace('@', '-')}.log, then: systemctl start {unit}"
        yield finding("fail", "database", f"PostgreSQL {found['cluster']} does not answer: no launches", fix)
    else:
        told = found["told"]
        yield finding("ok", "database", f"PostgreSQL {told['version']} answers: {told['size']}, {told['connections']} connections")


def _binder(facts: Facts, groups: list[str]) -> Iterator[Finding]:
    if not {"control", "builder"} & set(groups):
        return
    binder = facts["binder"]
    if binder is None:
        yield finding("fail", "binder", "is not installed", "Run site.")
        return
    silent = [part["name"] for part in binder["parts"] if not part["answers"]]
    if binder["up"]:
        where = f"answers at {binder['url']}" if binder["url"] else "builds for the control host"
        yield finding("ok", "binder", f"{where}: {', '.join(part['name'] for part in binder['parts'])}")
    else:
        fix = "On this host: binder-onprem check, then binder-onprem up."
        yield finding("fail", "binder", f"no answer of {', '.join(silent) or 'anything'}", fix)


def _node(node: Facts) -> Iterator[Finding]:
    if not node.get("ready"):
        fix = "On this host: journalctl -u 'k3s*' -n 50. It takes no new sessions meanwhile."
        yield finding("fail", "node", node.get("why") or "not Ready", fix)
    elif node.get("cordoned"):
        yield finding(
            "warn",
            "node",
            f"{node['version']}, cordoned: no new sessions",
            "If nobody works on it: kubectl uncordon, or run upgrade again to its end.",
        )
    else:
        yield finding("ok", "node", f"{node['version']}, Ready, {node['sessions']} sessions")


class FilterModule:
    """What templates may use."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Names and functions."""
        return {"binder_status_rows": binder_status_rows}
