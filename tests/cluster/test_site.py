"""The playbooks on bare hosts, brought to what the inventory says: a registry on Debian 12, a builder on Debian 13."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.cluster.site import Site

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cluster.hosts import Hosts

pytestmark = [pytest.mark.real, pytest.mark.timeout(1500)]

GROUPS = {"registry": ("depot",), "builder": ("worker",)}
NAMES = ("depot", "worker")
SMALL = {group: {"/var/lib": 0.1} for group in GROUPS}


@pytest.fixture(scope="module")
def site(hosts: Hosts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    hosts.start("depot")
    hosts.start("worker", suite="trixie")
    site = Site(hosts, tmp_path_factory.mktemp("site"))
    site.describe(GROUPS, preflight_disk=SMALL, preflight_memory={})
    yield site
    for name in NAMES:
        hosts.remove(name)


@pytest.fixture(scope="module")
def made(site: Site) -> dict[str, Any]:
    """`site` has run once, on clean hosts that preflight found fit."""
    site.done("preflight")
    return site.done("site")


def test_a_second_run_and_a_look_change_nothing(site: Site, made: dict[str, Any]) -> None:
    assert made["changed"] > 0
    second = site.done("site")
    assert second["changed"] == 0, [line for line in Path(second["log"]).read_text().splitlines() if line.startswith("changed")]
    assert site.done("site", "--check")["changed"] == 0


def test_no_secret_is_readable_by_another_account(site: Site, made: dict[str, Any]) -> None:
    assert made
    secrets = {file.read_text().strip() for file in site.secrets.iterdir() if file.is_file() and file.suffix == "" and file.stat().st_size < 200}
    assert len(secrets) >= 3
    lines = "\n".join(sorted(secrets)).encode() + b"\n"
    places = "/etc /var /opt /srv /home /root /run /tmp /usr/local"
    for name in NAMES:
        seen = site.hosts.run(name, f"grep -rlsI -F -f - {places}; true", user="eyes", given=lines)
        assert seen.stdout == "", name
        seen = site.hosts.run(
            name,
            "cat > /dev/shm/known; cat /proc/*/cmdline /proc/*/environ 2>/dev/null | tr '\\0' '\\n' | grep -c -F -f /dev/shm/known",
            check=False,
            given=lines,
        )
        assert seen.stdout.strip() == "0", name
        seen = site.hosts.run(name, "journalctl --no-pager | grep -c -F -f /dev/shm/known; rm /dev/shm/known", check=False)
        assert seen.stdout.strip() == "0", name
    assert {oct(file.stat().st_mode & 0o077) for file in site.secrets.iterdir()} <= {"0o0", "0o44"}


def test_logs_of_the_runs_hold_no_secret(site: Site, made: dict[str, Any]) -> None:
    secrets = [file.read_text().strip() for file in site.secrets.iterdir() if file.is_file() and file.suffix == "" and file.stat().st_size < 200]
    for file in site.folder.joinpath("state").rglob("*"):
        if file.is_file():
            text = file.read_text(encoding="utf-8", errors="replace")
            assert not any(secret in text for secret in secrets), file
    assert not any(secret in json.dumps(made) for secret in secrets)
