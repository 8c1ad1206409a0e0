"""What status makes of what runs; which version of Kubernetes may follow which; small decisions of the playbooks."""

from __future__ import annotations

import copy
import hashlib
from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.plugins import answer, plugin

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

rules, versions, files, archive = (
    plugin(path)
    for path in (
        "filter_plugins/binder_status.py",
        "filter_plugins/binder_versions.py",
        "filter_plugins/binder_files.py",
        "library/binder_archive.py",
    )
)
GIB = 1024**3
DAY = 86400
GROUPS = ["registry", "k3s_agent", "control", "database"]
GOOD: dict[str, Any] = {
    "units": [
        {"name": name, "active": "active"}
        for name in (
            "binder-registry-front.service",
            "binder-registry-push.service",
            "binder-registry-pull.service",
            "binder-registry-collect.timer",
            "k3s-agent.service",
        )
    ],
    "disks": {"/var/lib/rancher": {"used": 0.5, "inodes": 0.1, "free": 50 * GIB}},
    "certificates": {"/a.pem": 1000 + 200 * DAY, "/b.pem": 1000 + 90 * DAY},
    "binder": {"up": True, "url": "http://b", "parts": [{"name": "hub", "answers": True}]},
    "database": {"cluster": "15/binder", "told": {"version": "15.18", "size": "8 MB", "connections": "3"}},
    "now": 1000.0,
}
NODE = {"ready": True, "why": "", "version": "v1.34.3+k3s1", "cordoned": False, "sessions": 3}


def rows(change: Callable[[dict[str, Any]], object] = lambda _: None, node: dict[str, Any] | None = NODE) -> list[dict[str, str]]:
    facts = copy.deepcopy(GOOD)
    change(facts)
    return list(rules.binder_status_rows(facts, GROUPS, 30, node))


def unit(name: str, active: str) -> Callable[[dict[str, Any]], object]:
    return lambda facts: next(one for one in facts["units"] if one["name"] == name).update(active=active)


def test_a_site_that_is_well_has_nothing_to_do() -> None:
    found = rows()
    assert {one["level"] for one in found} == {"ok"}
    assert "in 90 days" in next(one["text"] for one in found if one["subject"] == "certificates")


@pytest.mark.parametrize(
    ("level", "subject", "fix", "change"),
    [
        ("fail", "k3s-agent.service", "journalctl", unit("k3s-agent.service", "failed")),
        ("fail", "binder-registry-push.service", "systemctl start", unit("binder-registry-push.service", "inactive")),
        ("fail", "k3s-agent.service", "site", lambda facts: facts["units"].pop()),
        (
            "fail",
            "binder-front.service",
            "journalctl -u binder-front.service",
            lambda facts: facts["units"].append({"name": "binder-front.service", "active": "activating"}),
        ),
        (
            "fail",
            "binder-onprem-x.service",
            "journalctl",
            lambda facts: facts["units"].append({"name": "binder-onprem-x.service", "active": "failed"}),
        ),
        ("fail", "/var/lib/rancher", "prune", lambda facts: facts["disks"]["/var/lib/rancher"].update(used=0.95)),
        ("fail", "/var/lib/rancher", "prune", lambda facts: facts["disks"]["/var/lib/rancher"].update(inodes=0.95)),
        ("warn", "/var/lib/rancher", "budget", lambda facts: facts["disks"]["/var/lib/rancher"].update(used=0.85)),
        ("warn", "certificates", "deploy certificates", lambda facts: facts["certificates"].update({"/c.pem": 1000 + 10 * DAY})),
        ("fail", "certificates", "deploy certificates", lambda facts: facts["certificates"].update({"/c.pem": 900})),
        ("fail", "database", "systemctl start postgresql@15-binder", lambda facts: facts["database"].update(told={})),
        ("fail", "database", "site", lambda facts: facts.update(database=None)),
        ("fail", "binder", "check", lambda facts: facts.update(binder={"up": False, "url": "", "parts": [{"name": "hub", "answers": False}]})),
        ("fail", "binder", "site", lambda facts: facts.update(binder=None)),
    ],
)
def test_what_is_wrong_says_what_to_do(level: str, subject: str, fix: str, change: Callable[[dict[str, Any]], object]) -> None:
    (found,) = [one for one in rows(change) if one["subject"] == subject]
    assert found["level"] == level
    assert fix in found["fix"]


def test_during_a_collection_the_pushing_listener_is_not_missed() -> None:
    def collect(facts: dict[str, Any]) -> None:
        unit("binder-registry-push.service", "inactive")(facts)
        facts["units"].append({"name": "binder-registry-collect.service", "active": "activating"})

    assert {one["level"] for one in rows(collect)} == {"ok"}


@pytest.mark.parametrize(("node", "level", "word"), [
    ({"ready": False, "why": "kubelet stopped posting node status"}, "fail", "kubelet"),
    ({**NODE, "cordoned": True}, "warn", "cordoned"),
    (NODE, "ok", "3 sessions"),
])  # fmt: skip
def test_a_node_is_judged_by_what_the_cluster_says(node: dict[str, Any], level: str, word: str) -> None:
    (found,) = [one for one in rows(node=node) if one["subject"] == "node"]
    assert found["level"] == level
    assert word in found["text"]


@pytest.mark.parametrize(("wanted", "runs", "why"), [
    ("v1.34.3+k3s1", "v1.34.3+k3s1", ""),
    ("v1.34.4+k3s1", "k3s version v1.34.3+k3s2 (abc)", ""),
    ("v1.35.0+k3s1", "v1.34.9+k3s1", ""),
    ("v1.36.0+k3s1", "v1.34.9+k3s1", "step by step, first to v1.35"),
    ("v1.34.3+k3s1", "v1.34.4+k3s1", "does not go back"),
    ("v1.34.3+k3s1", "v1.34.3+k3s2", "does not go back"),
    ("v2.0.0+k3s1", "v1.34.3+k3s2", "step by step"),
])  # fmt: skip
def test_versions_go_up_one_minor_at_a_time_and_never_back(wanted: str, runs: str, why: str) -> None:
    objection = versions.binder_skew(wanted, [runs])
    assert (why in objection) if why else objection == ""


def test_checksums_are_read_as_a_release_has_them() -> None:
    assert files.binder_sums("aa  k3s\nbb *k3s-airgap-images-amd64.tar.zst\n\n") == {"k3s": "aa", "k3s-airgap-images-amd64.tar.zst": "bb"}


def test_a_node_reaches_its_pods_from_two_addresses() -> None:
    assert files.binder_node_addresses("10.42.3.0/24") == ["10.42.3.0/32", "10.42.3.1/32"]


def test_an_archive_follows_from_contents_alone(tmp_path: Path) -> None:
    def made(name: str) -> str:
        root = tmp_path / name
        (root / "package" / "__pycache__").mkdir(parents=True)
        (root / "package" / "__pycache__" / "x.pyc").write_text(name)
        (root / "package" / "module.py").write_text("1\n")
        (root / "run").write_text("#!/bin/sh\n")
        (root / "run").chmod(0o755)
        return hashlib.sha256(archive.archive(root, ["package", "run"])).hexdigest()

    assert made("one") == made("other")
    (tmp_path / "one" / "package" / "module.py").write_text("2\n")
    assert (
        hashlib.sha256(archive.archive(tmp_path / "one", ["package", "run"])).hexdigest()
        != hashlib.sha256(archive.archive(tmp_path / "other", ["package", "run"])).hexdigest()
    )


SILENT = '{"up": false, "url": "http://b", "parts": [{"name": "hub", "answers": false}, {"name": "proxy", "answers": true}]}'


@pytest.mark.parametrize(
    ("told", "sentence"),
    [(SILENT, "no answer of hub"), ('{"error": "config", "message": "x"}', "no answer of anything"), ("nonsense", "no answer of anything")],
)
def test_which_part_is_silent_is_told_although_the_command_fails_then(
    told: str, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = tmp_path / "binder-onprem"
    command.write_text(f"#!/bin/sh\necho '{told}'\nexit 6\n")
    command.chmod(0o755)
    status = answer(plugin("library/binder_status.py"), capsys, command=[str(command)])["status"]
    (row,) = [one for one in rules.binder_status_rows(status, ["control"], 30) if one["subject"] == "binder"]
    assert (row["level"], row["text"]) == ("fail", sentence)


def test_a_builder_is_looked_at_as_the_control_host_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = tmp_path / "binder-onprem"
    command.write_text("""#!/bin/sh\necho '{"up": true, "url": null, "parts": [{"name": "daemon", "answers": true}]}'\n""")
    command.chmod(0o755)
    status = answer(plugin("library/binder_status.py"), capsys, command=[str(command)])["status"]
    (row,) = [one for one in rules.binder_status_rows(status, ["builder"], 30) if one["subject"] == "binder"]
    assert (row["level"], row["text"]) == ("ok", "builds for the control host: daemon")
