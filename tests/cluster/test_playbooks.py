"""The playbooks on bare servers, by `binder-onprem deploy`, as IT runs it: registry and database, one server that is the control host, agents.

The tests stand in the order in which a site lives; each one leaves the site as the next one expects it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.cluster import artefacts, cache
from tests.cluster.watching import Watching
from tests.unit.plugins import plugin

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cluster.hosts import Hosts

pytestmark = [pytest.mark.real, pytest.mark.timeout(2400)]
certificate = plugin("library/binder_certificate.py")
ROOT = Path(__file__).parents[2]
NAMES = ("reg", "head", "work1")
IMAGES = "/opt/binder-onprem/cache/binder-onprem/images"
BINDER = "/var/lib/binder-onprem/venv/bin/binder-onprem"
TAINT = "node-role.kubernetes.io/control-plane=true:NoSchedule"
LOOK = r"""
dpkg -l | awk '{print $1, $2}'
find / -xdev \( -path /proc -o -path /sys -o -path /tmp -o -path /var/tmp -o -path /var/cache -o -path /var/lib/apt -o -path /var/log \
  -o -path '/var/lib/dpkg/*-old' -o -path '/var/lib/ucf/*' -o -path '/usr/share/man/man*' \
  -o -path '*/.ansible' -o -path '*/.kube' -o -name __pycache__ \) -prune -o -printf '%p %m %u %g\n' | sort
find /var/lib -xdev \( -path /var/lib/apt -o -path /var/lib/systemd -o -path '/var/lib/dpkg/*-old' -o -path '/var/lib/ucf/*' \) \
  -prune -o -printf '%p %m %u %g\n' | sort
getent passwd; getent group; cat /etc/subuid /etc/subgid
ip -brief link | sed 's/@.*//' | awk '{print $1}'
awk '{print $2}' /proc/self/mounts | sort
systemctl list-unit-files --no-legend | awk '{print $1, $2}'
"""
"""What has to be as before: packages, files with their rights, accounts, links, mounts, units.
Not the cache of kubectl, which these tests call, nor what dpkg and ucf keep of before."""


class Site:
    """An inventory, and the command on it."""

    def __init__(self, hosts: Hosts, folder: Path) -> None:
        self.hosts = hosts
        self.folder = folder
        self.inventory = folder / "hosts.json"
        self.secrets = folder / "secrets"
        self.variables: dict[str, Any] = {
            "k3s_artifacts": str(artefacts.directory()),
            "k3s_api_host": hosts.address("head"),
            "site_registry_host": hosts.address("reg"),
            "namespace_helm": str(artefacts.helm()),
            "preflight_disk": {},
            "site_database_host": hosts.address("reg"),
            "site_firewall": True,
            "canary_every": "12h",
            "binder_host": hosts.address("head"),
            "binder_settings": {"network": {"allow": ["127.0.0.0/8"]}},
        }
        self.groups = {"registry": ("reg",), "k3s_server": ("head",), "k3s_agent": ("work1",), "builder": ("work1",), "control": ("head",)}
        self.groups |= {"monitoring": ("reg",), "database": ("reg",)}
        self.write()

    def write(self) -> None:
        """The inventory as it is now."""
        listed: Any = self.hosts.inventory(self.groups, **self.variables)
        listed["all"]["children"]["k3s_server"]["vars"] = {"k3s_taints": [TAINT]}
        self.inventory.write_text(json.dumps(listed))

    def deploy(self, *words: str) -> tuple[int, dict[str, Any]]:
        """Run a verb; exit code and what it tells."""
        command = [sys.executable, "-c", "from binder_onprem.cli import main; main()", "deploy", *words, "--json", "-i", str(self.inventory)]
        env = {**os.environ, "XDG_STATE_HOME": str(self.folder / "state"), "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=2000, env=env, cwd=ROOT)
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout)

    def done(self, *words: str) -> dict[str, Any]:
        """The same where it has to succeed."""
        code, told = self.deploy(*words)
        assert code == 0, told.get("failures", told)
        return told

    def lend_images(self, name: str) -> None:
        """A new host gets the images that a Binder stands on from those before it, in this run and earlier ones; `test_bundle` has one make them."""
        kept = cache.directory() / "images"
        if kept.exists():
            self.hosts.run(name, f"mkdir -p {IMAGES}")
            self.hosts.podman("cp", f"{kept}/.", f"{name}:{IMAGES}")

    def keep_images(self, name: str) -> None:
        """Those that were used last, one of each kind, for hosts after it."""
        kept, found = cache.directory() / "images", self.folder / "images"
        self.hosts.podman("cp", f"{name}:{IMAGES}", str(found))
        shutil.rmtree(kept, ignore_errors=True)
        kept.mkdir()
        for kind in ("session", "sandbox"):
            last = max(found.glob(f"{kind}-*.tar"), key=lambda file: file.stat().st_mtime)
            shutil.move(last, kept)
        shutil.rmtree(found)


@pytest.fixture(scope="module")
def before() -> dict[str, str]:
    return {}


@pytest.fixture(scope="module")
def site(hosts: Hosts, before: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    # One CA for all runs, as images hold it: with another one those that are kept would be others.
    authority = cache.kept("authority", "site", lambda folder: certificate.make_ca(folder, "CA of this Binder"), "Making the site's CA.")
    hosts.start(*NAMES)
    before.update({name: hosts.run(name, LOOK).stdout for name in NAMES})
    site = Site(hosts, tmp_path_factory.mktemp("site"))
    shutil.copytree(authority, site.secrets)
    site.secrets.chmod(0o700)
    yield site
    for name in (*NAMES, "work2"):
        if name in hosts.names:
            hosts.remove(name)


def levels(rows: list[dict[str, str]], level: str) -> dict[str, dict[str, str]]:
    return {row["subject"]: row for row in rows if row["level"] == level}


def test_preflight_finds_nothing_against_good_hosts_and_changes_nothing(site: Site) -> None:
    told = site.done("preflight")
    assert told["changed"] == 0
    assert set(told["findings"]) == set(NAMES)
    assert all(not levels(rows, "fail") for rows in told["findings"].values())


def test_preflight_names_what_is_broken_with_its_fix(site: Site) -> None:
    hosts = site.hosts
    hosts.run("work1", "echo head >/etc/hostname; hostname head; cp -p /etc/machine-id /root/machine-id; mount --bind /dev/null /etc/resolv.conf")
    machine_id = hosts.run("head", "cat /etc/machine-id").stdout
    hosts.write("work1", "/etc/machine-id", machine_id, "444")
    hosts.run("reg", "systemd-run --unit=squatter python3 -m http.server 5000")
    try:
        code, told = site.deploy("preflight", "-e", "site_registry_host=registry.nowhere.example")
    finally:
        hosts.run(
            "work1", "echo work1 >/etc/hostname; hostname work1; cp -p /root/machine-id /etc/machine-id; rm /root/machine-id; umount /etc/resolv.conf"
        )
        hosts.run("reg", "systemctl stop squatter")
    assert code == 11
    work, reg = (levels(told["findings"][name], "fail") for name in ("work1", "reg"))
    assert {"hostname", "machine id", "names"} <= set(work)
    assert "hostnamectl" in work["hostname"]["fix"]
    assert "systemd-machine-id-setup" in work["machine id"]["fix"]
    assert "squatter.service" in reg["ports"]["fix"]


def test_a_look_at_new_hosts_fails_at_nothing_and_changes_nothing(site: Site, before: dict[str, str]) -> None:
    told = site.done("site", "--check")
    assert told["changed"] > 0
    assert not site.secrets.exists() or not list(site.secrets.glob("*-token"))
    assert {name: site.hosts.run(name, LOOK).stdout for name in NAMES} == before


def test_site_and_the_second_time_nothing_changes(site: Site) -> None:
    site.lend_images("head")
    assert site.done("site")["changed"] > 0
    site.keep_images("head")
    assert site.done("site")["changed"] == 0
    assert site.done("site", "--check")["changed"] == 0


def sessions(site: Site) -> list[dict[str, Any]]:
    """Their pods."""
    pods = json.loads(site.hosts.run("head", "k3s kubectl get pods -n binder -o json").stdout)["items"]
    return [one for one in pods if one["metadata"]["labels"].get("io.binder-onprem.kind") == "session"]


def launched(site: Site) -> tuple[str, str, str]:
    """Launch the sample: the session's address, its token, its node."""
    before = {pod["metadata"]["name"] for pod in sessions(site)}
    sample = json.loads(site.hosts.run("head", f"{BINDER} up --json").stdout)["sample"]
    said = site.hosts.run("head", f"{BINDER} launch '{sample}' 2>&1").stdout
    found = re.search(r"https://\S+/jupyter/user/([^/]+)/\S*\?token=(\S+)", said)
    assert found, said
    (pod,) = [pod for pod in sessions(site) if pod["metadata"]["name"] not in before]
    assert pod["spec"]["containers"][0]["image"].startswith(f"{site.hosts.address('reg')}:5000/")
    return f"https://{site.hosts.address('head')}/jupyter/user/{found[1]}/", found[2], pod["spec"]["nodeName"]


def asked(site: Site, url: str, token: str) -> list[str]:
    """A command that asks as a person's browser does, which knows the site's CA."""
    return ["curl", "-sS", "--fail", "--max-time", "20", "--cacert", str(site.secrets / "ca.pem"), "-H", f"Authorization: token {token}", url]


def test_a_link_is_built_pushed_pulled_by_a_node_and_answers(site: Site) -> None:
    url, token, node = launched(site)
    (build,) = json.loads(site.hosts.run("head", f"{BINDER} builds list --json").stdout)
    assert "This is built on work1." in site.hosts.run("head", f"{BINDER} builds log {build['id']}").stdout
    assert node == "work1"
    answer = subprocess.run(asked(site, f"{url}api/status", token), capture_output=True, text=True, check=False)
    assert "kernels" in answer.stdout, answer.stderr
    for name, port in (("head", 8585), ("reg", 5000), ("reg", 5432)):
        with pytest.raises(OSError, match="refused"):
            socket.create_connection((site.hosts.address(name), port), timeout=5).close()


def test_the_canary_calculates_and_leaves_nothing_behind(site: Site) -> None:
    told = site.done("canary")
    assert told["canary"]["head"][0]["level"] == "ok"
    code, failed = site.deploy("canary", "-e", "canary_link=git/http%3A%2F%2F127.0.0.1%3A1%2Fnothing.git/HEAD")
    assert code == 11
    assert "failed" in failed["failures"][0]["message"]


def test_status_is_one_screen_on_which_nothing_fails(site: Site) -> None:
    told = site.done("status")
    assert {name: levels(rows, "fail") for name, rows in told["status"].items()} == {name: {} for name in NAMES}
    assert {"binder", "k3s.service", "node", "certificates"} <= set(levels(told["status"]["head"], "ok"))
    assert {"binder", "k3s-agent.service", "node", "certificates"} <= set(levels(told["status"]["work1"], "ok"))


def test_no_other_account_reads_a_secret_nor_does_a_log_or_a_list_of_processes(site: Site) -> None:
    planted = {path.name: path.read_text().strip() for path in site.secrets.iterdir() if path.name in ("registry-push", "registry-pull", "k3s-token")}
    assert len(planted) == 3
    assert {path.stat().st_mode & 0o077 for path in site.secrets.iterdir() if path.suffix != ".tar"} == {0}
    logs = "".join(path.read_text(errors="replace") for path in (site.folder / "state").rglob("*") if path.is_file())
    assert not any(value in logs for value in planted.values())
    # By standard input, or they would be found in the list of processes that the search itself is in.
    lines = "".join(f"{value}\n" for value in planted.values()).encode()
    processes = "cat >/dev/shm/known; cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -c -F -f /dev/shm/known; rm /dev/shm/known"
    for name in NAMES:
        found = site.hosts.run(name, "grep -rlIs -F -f - /etc /opt /usr/local /var/lib /var/log /run /tmp; true", user="eyes", given=lines)
        assert found.stdout == "", name
        assert site.hosts.run(name, processes, given=lines).stdout.strip() == "0", name


def test_a_bug_report_has_every_host_and_no_secret(site: Site) -> None:
    _, token, _ = launched(site)
    # One that stays is among the units that are listed.
    noise = f"systemd-run --quiet --remain-after-exit --unit=binder-noise echo 'GET /user/alice/lab?token={token} password: hunter2'"
    site.hosts.run("head", noise)
    code, told = site.deploy("support", "-e", "support_seconds=400")
    site.hosts.run("head", "systemctl stop binder-noise")
    assert code == 0, told["failures"]
    assert {name: levels(rows, "ok").keys() for name, rows in told["support"].items()} == {name: {"support"} for name in NAMES}
    (path,) = (site.folder / "support").iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    with tarfile.open(path) as tar:
        found = {entry.name.partition("/")[2]: (tar.extractfile(entry) or sys.exit()).read().decode() for entry in tar}
    assert {f"{name}/{inner}" for name in NAMES for inner in ("versions.txt", "machine.txt", "units.txt", "status.json")} <= set(found)
    assert {
        "reg/journal/binder-registry-push.service.log",
        "reg/settings/etc/binder-registry/push.yml",
        "work1/journal/k3s-agent.service.log",
    } <= set(found)
    assert {"head/cluster.txt", "head/events.txt", "head/podman.txt", "head/settings/var/lib/binder-onprem/config.yaml"} <= set(found)
    assert json.loads(found["head/binder-status.json"])["up"]
    assert "findings" in json.loads(found["head/binder-check.json"])
    noise = found["head/journal/binder-noise.service.log"]
    assert "token=[removed]" in noise
    text = "\n".join(found.values())
    planted = {file.name: file.read_text().strip() for file in site.secrets.iterdir() if file.suffix == "" and file.stat().st_size < 200}
    own = re.findall(r"\b[0-9a-f]{64}\b", site.hosts.run("head", "cat /var/lib/binder-onprem/secrets/*").stdout)
    assert len(planted) >= 4
    assert len(own) >= 6
    assert [value for value in (*planted.values(), *own, token, "hunter2", "alice", "PRIVATE KEY") if value in text] == []


def nodes(site: Site) -> dict[str, tuple[str, bool]]:
    """Name → version of the kubelet, whether it takes pods."""
    listed = json.loads(site.hosts.run("head", "k3s kubectl get nodes -o json").stdout)["items"]
    return {one["metadata"]["name"]: (one["status"]["nodeInfo"]["kubeletVersion"], not one["spec"].get("unschedulable")) for one in listed}


def test_a_node_joins(site: Site) -> None:
    site.hosts.start("work2")
    site.groups["k3s_agent"] = ("work1", "work2")
    site.write()
    site.done("add", "--limit", "work2")
    assert set(nodes(site)) == {"head", "work1", "work2"}


class Watched(Watching):
    """Asks something again and again, from beginning to end; `said` are the different answers."""

    def __init__(self, site: Site, url: str, token: str) -> None:
        self.command = asked(site, url, token)
        self.asked, self.failures, self.said = 0, list[str](), set[str]()
        super().__init__()

    def look(self) -> None:
        done = subprocess.run(self.command, capture_output=True, text=True, check=False)
        self.asked += 1
        self.failures += [done.stderr] if done.returncode else []
        self.said |= {done.stdout} - {""}


def lost_power(site: Site, name: str, later: Path) -> None:
    """A node goes when it has the new version and has not started it: it is left closed, says which way out, and takes no part in a look."""
    binary = Path("usr/local/bin/k3s")
    old = site.hosts.run(name, f"stat --format=%i /{binary}").stdout.strip()
    with site.hosts.power_cut(name, lambda root: (root / binary).exists() and str((root / binary).stat().st_ino) != old):
        code, told = site.deploy("upgrade", "--limit", name, "-e", f"k3s_artifacts={later}", "-e", "upgrade_patience=1")
    assert (code, [(failure["host"], failure["kind"]) for failure in told["failures"]]) == (6, [(name, "unreachable")])
    assert "run the same command again" in told["failures"][0]["fix"]
    assert not nodes(site)[name][1], "a node that nobody has looked at takes pods"


def test_an_upgrade_leaves_sessions_on_other_nodes_alone(site: Site, tmp_path: Path) -> None:
    later, old = artefacts.following(), nodes(site)
    if later == artefacts.directory():
        pytest.skip(f"the real release that is given has no later one beside it: name that in {artefacts.LATER}")
    jump = tmp_path / "jump"
    shutil.copytree(later, jump)
    (jump / "k3s").write_text("#!/bin/sh\necho k3s version v1.99.0+k3s1\n")
    code, told = site.deploy("upgrade", "-e", f"k3s_artifacts={jump}")
    assert (code, "step by step" in told["failures"][0]["message"]) == (11, True)

    url, token, here = launched(site)
    others = [name for name in old if name != here]
    assert site.done("upgrade", "--check", "-e", f"k3s_artifacts={later}")["changed"] > 0
    with Watched(site, f"{url}api/status", token) as watched:
        lost_power(site, next(name for name in others if name in site.groups["k3s_agent"]), later)
        site.done("upgrade", "--limit", ",".join(others), "-e", f"k3s_artifacts={later}", "-e", "upgrade_patience=1")
    assert (watched.asked > 5, watched.failures) == (True, [])
    assert {name for name, (version, _) in nodes(site).items() if version != old[name][0]} == set(others)

    site.variables["k3s_artifacts"] = str(later)
    site.write()
    # Somebody works on the last node: she is told, and then it ends.
    api, _, name = url.rstrip("/").partition("jupyter/user/")
    with Watched(site, f"{api}api/session/{name}", token) as watched:
        site.done("upgrade", "-e", "upgrade_patience=10")
    assert any(json.loads(text)["maintenance"] for text in watched.said), watched.said
    assert len(set(nodes(site).values())) == 1
    assert not set(nodes(site).values()) & set(old.values())


def test_a_node_leaves(site: Site) -> None:
    site.done("remove", "--limit", "work2", "--yes")
    assert "work2" not in site.hosts.run("head", "k3s kubectl get nodes -o name").stdout
    assert site.hosts.run("work2", "ls -d /var/lib/rancher/k3s /etc/rancher/k3s /usr/local/bin/k3s", check=False).stdout == ""
    site.groups["k3s_agent"] = ("work1",)
    site.write()


def test_registry_and_control_host_come_back_on_new_machines_and_an_old_link_needs_no_build(site: Site, tmp_path: Path) -> None:
    hosts = site.hosts
    site.variables |= {"backup_target": "/srv/backups", "backup_calendar": "daily"}
    site.write()
    for name in ("head", "reg"):
        hosts.run(name, "mkdir /srv/backups && mount -t tmpfs -o size=4g none /srv/backups")
    site.done("backup")
    hosts.run("head", "systemctl start binder-backup.service")
    assert hosts.run("head", "systemctl is-active binder-backup.timer").stdout.strip() == "active"
    sent = hosts.run("head", "cd /srv/backups && sha256sum --check --quiet *.sha256 && ls head.*.age").stdout.split()
    assert len(sent) == 2
    archives = sorted((site.folder / "backups").glob("*.age"))
    assert [path.name.partition(".")[0] for path in archives] == ["head", "reg"]
    assert archives[0].name in sent
    builds = hosts.run("head", f"{BINDER} builds list --json").stdout
    hosts.replace("head", "reg")

    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for path in archives:
        data = bytearray(path.read_bytes())
        data[-1000] ^= 1
        (damaged / path.name).write_bytes(data)
    code, failed = site.deploy("restore", "--yes", "-e", f"backup_archives={damaged}")
    assert code == 11
    assert "nothing was changed" in failed["failures"][0]["message"]
    assert hosts.run("head", "ls /var/lib/rancher /var/lib/binder-onprem /etc/binder-onprem", check=False).stdout == ""

    site.lend_images("head")
    site.done("restore")
    launched(site)
    assert hosts.run("head", f"{BINDER} builds list --json").stdout == builds
    code, failed = site.deploy("restore")
    assert (code, "would overwrite" in failed["failures"][0]["message"]) == (11, True)


def test_a_play_that_was_cut_off_between_a_file_and_its_restart_is_healed(site: Site) -> None:
    site.hosts.run("reg", "touch /etc/binder-registry/push.yml")
    told = site.done("site", "--limit", "reg")
    assert told["changed"] == 1
    assert site.done("site", "--limit", "reg")["changed"] == 0


def test_a_release_that_is_damaged_comes_to_no_host(site: Site, tmp_path: Path) -> None:
    other = tmp_path / "k3s"
    other.mkdir()
    for file in artefacts.directory().iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    sums = (other / "sha256sum-amd64.txt").read_text()
    (other / "sha256sum-amd64.txt").write_text(re.sub(r"^\w+(?=\s+k3s$)", "0" * 64, sums, flags=re.MULTILINE))
    code, told = site.deploy("site", "--limit", "work1", "-e", f"k3s_artifacts={other}")
    assert code == 11
    assert "missing or damaged" in told["failures"][0]["message"]


def test_certificates_are_renewed_node_by_node_where_they_end_soon(site: Site) -> None:
    started = "systemctl show --property=ExecMainStartTimestampMonotonic k3s"
    old = site.hosts.run("head", started).stdout
    assert site.done("certificates")["changed"] == 0
    assert site.hosts.run("head", started).stdout == old
    told = site.done("certificates", "--limit", "head", "-e", "certificates_days=380")
    assert site.hosts.run("head", started).stdout != old
    assert levels(told["status"]["head"], "fail") == {}


def test_reset_leaves_the_hosts_as_they_were(site: Site, before: dict[str, str]) -> None:
    site.done("reset", "--yes")
    for name in NAMES:
        was, now = (set(text.splitlines()) for text in (before[name], site.hosts.run(name, LOOK).stdout))
        assert sorted(now - was) == [], name
        assert sorted(was - now) == [], name
