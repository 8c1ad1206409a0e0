"""The playbooks on bare hosts, brought to what the inventory says: a registry on Debian 12, a builder and the database on Debian 13."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from binder_onprem.errors import StoreUnavailable
from binder_onprem.store import open_engine, open_store
from tests.cluster.proxy import PASSWORD
from tests.cluster.site import Site
from tests.unit.parts import record
from tests.unit.plugins import plugin

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cluster.hosts import Hosts
    from tests.cluster.proxy import Proxy

pytestmark = [pytest.mark.real, pytest.mark.timeout(1500)]

certificate = plugin("library/binder_certificate.py")
GROUPS = {"registry": ("depot",), "builder": ("worker",), "database": ("worker",)}
NAMES = ("depot", "worker")
PORT = 5433
ID = "0" * 16
OTHERS = """set -e; export DEBIAN_FRONTEND=noninteractive; apt-get -qq update; apt-get -qq -y --no-install-recommends install postgresql
runuser -u postgres -- psql -q -c 'CREATE TABLE theirs (x int)'"""
"""Somebody's own PostgreSQL, which was there before."""
STRANGER = f"""
import socket, ssl, struct, sys
plain = socket.create_connection(("worker", {PORT}))
plain.sendall(struct.pack("!ii", 8, 80877103))
assert plain.recv(1) == b"S"
tls = ssl.create_default_context(cafile="/usr/local/share/ca-certificates/binder-onprem-site.crt").wrap_socket(plain, server_hostname="worker")
words = b"user\\0binder\\0database\\0binder\\0\\0"
tls.sendall(struct.pack("!ii", 8 + len(words), 196608) + words)
print(tls.recv(1000))
"""
"""What PostgreSQL tells another host that comes by TLS."""
SMALL = {group: {"/var/lib": 0.1} for group in GROUPS}


def describe(site: Site, proxy: Proxy, **more: str) -> None:
    """With a cache of a registry outside, which is the proxy's own port: it answers to whoever takes it for an ordinary server."""
    cache = {"name": "outside", "upstream": f"http://{site.hosts.gateway}:{proxy.port}", "port": 5001}
    database: dict[str, Any] = {"postgresql_clients": [site.hosts.gateway], "site_database_port": PORT}
    site.describe(GROUPS, preflight_disk=SMALL, preflight_memory={}, registry_caches=[cache], **database, **more)


@pytest.fixture(scope="module")
def site(hosts: Hosts, campus_proxy: Proxy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    hosts.start("depot")
    hosts.start("worker", suite="trixie")
    site = Site(hosts, tmp_path_factory.mktemp("site"))
    hosts.run("worker", OTHERS)
    describe(site, campus_proxy, site_proxy=campus_proxy.url(hosts.gateway))
    yield site
    for name in NAMES:
        hosts.remove(name)


@pytest.fixture(scope="module")
def cut(site: Site) -> tuple[int, dict[str, Any]]:
    """What is told of the first `site`, on clean hosts that preflight found fit: the power of one went in the midst of dpkg's work."""
    site.done("preflight")
    with site.hosts.power_cut("depot", lambda root: any(root.glob("var/lib/dpkg/updates/[0-9]*"))):
        return site.deploy("site")


@pytest.fixture(scope="module")
def made(site: Site, cut: tuple[int, dict[str, Any]]) -> dict[str, Any]:
    """`site` has run to its end once."""
    assert cut
    return site.done("site")


def test_after_a_power_cut_a_look_fails_at_nothing_and_site_heals_it(
    site: Site, cut: tuple[int, dict[str, Any]], request: pytest.FixtureRequest
) -> None:
    code, told = cut
    assert (code, [(failure["host"], failure["kind"]) for failure in told["failures"]]) == (6, [("depot", "unreachable")])
    assert "run the same command again" in told["failures"][0]["fix"]
    assert site.hosts.run("depot", "ls /var/lib/dpkg/updates").stdout != "", "dpkg was done before"
    assert site.done("site", "--check", "--limit", "depot")["changed"] > 0
    assert request.getfixturevalue("made")["changed"] > 0
    assert site.hosts.run("depot", "dpkg --audit; ls /var/lib/dpkg/updates").stdout == ""


def test_a_second_run_and_a_look_change_nothing(site: Site, made: dict[str, Any]) -> None:
    assert made["changed"] > 0
    second = site.done("site")
    assert second["changed"] == 0, [line for line in Path(second["log"]).read_text().splitlines() if line.startswith("changed")]
    assert site.done("site", "--check")["changed"] == 0


def refused(site: Site, *words: str) -> str:
    """What `site` says where it stops before it has changed anything."""
    code, told = site.deploy("site", *words)
    assert (code, told["changed"], len(told["failures"])) == (11, 0, 1)
    return str(told["failures"][0]["message"])


def test_a_ca_that_has_not_signed_the_registrys_certificate_comes_to_no_host(site: Site, made: dict[str, Any], tmp_path: Path) -> None:
    assert made
    for name in ("ours", "theirs"):
        certificate.make_ca(tmp_path / name, f"CA of {name}")
    ca, key = (tmp_path / "ours" / f"ca.{kind}" for kind in ("pem", "key"))
    signer = x509.load_pem_x509_certificate(ca.read_bytes()), serialization.load_pem_private_key(key.read_bytes(), None)
    certificate.make_server(tmp_path / "ours", ["depot"], *signer)
    given = {f"registry_certificate{end}": tmp_path / "ours" / f"depot.{kind}" for end, kind in (("", "pem"), ("_key", "key"))}
    extra = [word for name, value in {**given, "site_ca_file": tmp_path / "theirs" / "ca.pem"}.items() for word in ("-e", f"{name}={value}")]
    said = refused(site, *extra)
    assert "CN=CA of ours has signed it, and the CA is CN=CA of theirs" in said


def test_two_hosts_of_one_name_are_told_before_they_fight(site: Site, made: dict[str, Any]) -> None:
    assert made
    site.hosts.run("worker", "hostname depot")
    try:
        said = refused(site)
    finally:
        site.hosts.run("worker", "hostname worker")
    assert "depot, worker have the same host name, depot" in said
    assert "hostnamectl set-hostname" in said


def test_a_full_disk_is_named_with_its_host_and_room_heals_it(site: Site, made: dict[str, Any]) -> None:
    assert made
    site.hosts.run("depot", "mount -t tmpfs -o size=8m none /var/lib/binder-registry")
    try:
        said = refused(site, "--limit", "depot")
    finally:
        site.hosts.run("depot", "umount /var/lib/binder-registry")
    assert "depot: the disk of /var/lib/binder-registry (mounted at /var/lib/binder-registry) is full: 8 MiB are free" in said
    assert site.done("site", "--limit", "depot")["changed"] == 0


def test_no_secret_is_readable_by_another_account(site: Site, made: dict[str, Any]) -> None:
    assert made
    secrets = {file.read_text().strip() for file in site.secrets.iterdir() if file.is_file() and file.suffix == "" and file.stat().st_size < 200}
    assert len(secrets) >= 3
    known = "\n".join(sorted(secrets)).encode() + b"\n"
    lines = known + PASSWORD.encode() + b"\n"
    places = "/etc /var /opt /srv /home /root /run /tmp /usr/local"
    for name in NAMES:
        seen = site.hosts.run(name, f"grep -rlsI -F -f - {places}; true", user="eyes", given=lines)
        assert seen.stdout == "", name
        # The proxy's is in the environment of who uses it, which its account and root read.
        for files, given in (("/proc/*/cmdline /proc/*/environ", known), ("/proc/*/cmdline", lines)):
            search = f"cat > /dev/shm/known; cat {files} 2>/dev/null | tr '\\0' '\\n' | grep -c -F -f /dev/shm/known"
            assert site.hosts.run(name, search, check=False, given=given).stdout.strip() == "0", name
        seen = site.hosts.run(name, "journalctl --no-pager | grep -c -F -f /dev/shm/known; rm /dev/shm/known", check=False)
        assert seen.stdout.strip() == "0", name
    assert {oct(file.stat().st_mode & 0o077) for file in site.secrets.iterdir()} <= {"0o0", "0o44"}


def test_logs_of_the_runs_hold_no_secret(site: Site, made: dict[str, Any]) -> None:
    secrets = [file.read_text().strip() for file in site.secrets.iterdir() if file.is_file() and file.suffix == "" and file.stat().st_size < 200]
    secrets.append(PASSWORD)
    for file in site.folder.joinpath("state").rglob("*"):
        if file.is_file():
            text = file.read_text(encoding="utf-8", errors="replace")
            assert not any(secret in text for secret in secrets), file
    assert not any(secret in json.dumps(made) for secret in secrets)


def told(site: Site) -> dict[str, bool]:
    """Which of the registry's processes have a proxy in their environment."""
    names = ("push", "pull", "cache-outside")
    command = "tr '\\0' '\\n' </proc/$(systemctl show --property=MainPID --value binder-registry-{})/environ | grep -c -i ^https_proxy="
    return {name: site.hosts.run("depot", command.format(name), check=False).stdout.strip() == "2" for name in names}


def test_what_is_outside_is_asked_through_the_proxy_and_the_registry_is_not(site: Site, made: dict[str, Any], campus_proxy: Proxy) -> None:
    assert made
    archive = site.hosts.run("depot", "sed -n 's,^URIs: *[a-z]*://\\([^/:]*\\).*,\\1,p' /etc/apt/sources.list.d/site.sources").stdout.split()
    assert set(archive) <= campus_proxy.asked
    # The registry's cache asked its registry, too.
    assert campus_proxy.asked - set(archive) == {site.hosts.gateway, "binder-onprem.invalid"}
    assert campus_proxy.refused == 0
    assert told(site) == {"push": False, "pull": False, "cache-outside": True}
    shown = site.hosts.run("worker", "systemctl show --property=EnvironmentFiles podman.service").stdout
    assert "/etc/binder-proxy/environment" in shown


def test_without_the_variable_it_is_gone_from_where_it_was(site: Site, made: dict[str, Any], campus_proxy: Proxy) -> None:
    assert made
    describe(site, campus_proxy)
    assert site.done("site")["changed"] > 0
    assert site.done("site", "--check")["changed"] == 0
    assert told(site) == {"push": False, "pull": False, "cache-outside": False}
    for name in NAMES:
        assert [path for path in site.look(name) if "proxy" in path and "binder" in path] == [], name
        assert site.hosts.run(name, "ls -d /etc/systemd/system/podman.service.d /etc/containers/containers.conf.d", check=False).stdout == "", name


def url(site: Site, query: str, password: str = "") -> str:
    secret = password or site.secrets.joinpath("database").read_text().strip()
    return f"postgresql+asyncpg://binder:{secret}@{site.hosts.address('worker')}:{PORT}/binder?{query}"


def secured(site: Site) -> str:
    return url(site, f"ssl=verify-full&sslrootcert={site.secrets / 'ca.pem'}")


def test_the_database_takes_who_may_come_by_tls_and_nobody_else(site: Site, made: dict[str, Any]) -> None:
    assert made

    async def stored() -> None:
        async with open_store(secured(site)) as store:
            await store.add(record(ID))
            assert await store.build(ID) == record(ID)
        for refused in (url(site, "ssl=disable"), url(site, "ssl=require", "wrong"), url(site, "ssl=verify-full")):
            with pytest.raises(StoreUnavailable):
                async with open_engine(refused):
                    pass

    asyncio.run(stored())
    assert "no pg_hba.conf entry for host" in site.hosts.run("depot", "python3 -", given=STRANGER.encode()).stdout
    listening = site.hosts.run("worker", f"ss -Hltn sport = :{PORT}").stdout.split()
    assert listening[3::5] == [f"{site.hosts.address('worker')}:{PORT}"]
    rows = {row["subject"]: row for row in site.done("status")["status"]["worker"]}
    assert rows["database"]["text"].startswith("PostgreSQL 17")
    assert rows["database"]["level"] == "ok"


def test_a_new_certificate_and_new_rules_are_read_without_a_restart(site: Site, made: dict[str, Any]) -> None:
    assert made
    started = "systemctl show --property=ExecMainStartTimestampMonotonic --property=MainPID postgresql@17-binder"
    old = site.hosts.run("worker", started).stdout
    assert site.done("certificates", "--limit", "worker")["changed"] == 0
    assert site.done("certificates", "--limit", "worker", "-e", "certificates_days=398")["changed"] > 0
    site.hosts.run("worker", "touch /etc/postgresql/17/binder/pg_hba.conf")
    assert site.done("site", "--limit", "worker")["changed"] == 1
    assert site.hosts.run("worker", started).stdout == old
    command = ("openssl", "s_client", "-starttls", "postgres", "-connect", f"{site.hosts.address('worker')}:{PORT}")
    shown = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60).stdout
    assert site.secrets.joinpath("database.pem").read_text().strip() in shown


def test_reset_takes_our_cluster_alone_and_a_restore_brings_a_row_back(site: Site, made: dict[str, Any]) -> None:
    assert made
    site.done("backup", "--limit", "worker")
    site.done("reset", "--yes", "--limit", "worker")
    left = site.hosts.run("worker", "pg_lsclusters --no-header; ls -d /etc/postgresql/17/binder /var/lib/postgresql/17/binder", check=False).stdout
    assert [line.split()[:2] for line in left.splitlines()] == [["17", "main"]]
    assert "theirs" in site.hosts.run("worker", "runuser -u postgres -- psql -At -c '\\dt'").stdout
    site.done("restore", "--limit", "worker")

    async def row() -> None:
        async with open_store(secured(site)) as store:
            assert await store.build(ID) == record(ID)

    asyncio.run(row())
    assert site.hosts.run("worker", "ls -A /var/lib/binder-backup").stdout == ""
    code, failed = site.deploy("restore", "--limit", "worker")
    assert (code, "would overwrite" in failed["failures"][0]["message"]) == (11, True)
