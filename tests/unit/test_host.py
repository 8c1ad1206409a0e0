"""Choices that follow from facts, and the files that carry them."""

from __future__ import annotations

import errno
import shutil
import socket
import tempfile
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from binder_onprem.config import Config
from binder_onprem.host import engine_files, place, pool, ports, probes, sources, standing, up
from binder_onprem.host import machine as host
from binder_onprem.host.check import findings

MODERN = host.Host(
    distribution="Debian GNU/Linux 13",
    kernel=(6, 12),
    cgroups="v2",
    systemd=True,
    root=False,
    podman=(5, 8, 0),
    runtimes=("crun", "runc"),
    missing=(),
    open_files=1048576,
    processes=2**31 - 1,
    subids=16777216,
    memory=16 * 1024**3,
    disk=100 * 1024**3,
    filesystem="ext4",
)


@pytest.fixture(autouse=True)
def _clients_are_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    found = sources.Sources(b"", None, "Types: deb\n", None, None, None, None, (), frozenset())
    monkeypatch.setattr(sources, "read", lambda _: found)


@pytest.mark.parametrize(
    ("changes", "runtime", "manager"),
    [
        ({}, "crun", "systemd"),
        ({"cgroups": "hybrid"}, "runc", "cgroupfs"),
        ({"cgroups": "v1", "runtimes": ("crun",)}, "crun", "cgroupfs"),
        ({"systemd": False}, "crun", "cgroupfs"),
        ({"runtimes": ()}, "", "systemd"),
    ],
)
def test_runtime_and_manager(changes: dict[str, Any], runtime: str, manager: str) -> None:
    facts = replace(MODERN, **changes)
    assert (facts.runtime, facts.cgroup_manager) == (runtime, manager)


def test_limits_never_exceed_the_hosts(tmp_path: Path) -> None:
    facts = replace(MODERN, open_files=20000, processes=5000)
    text = engine_files.files(Config(home=tmp_path), facts)["containers.conf"]
    assert tomllib.loads(text)["containers"]["default_ulimits"] == ["nofile=20000:20000", "nproc=5000:5000"]


def test_every_engine_file_is_toml_and_of_this_site(tmp_path: Path) -> None:
    config = Config.model_validate({"home": tmp_path, "listen": {"port": 4000}})
    files = {name: tomllib.loads(text) for name, text in engine_files.files(config, MODERN).items()}
    assert files["storage.conf"]["storage"]["graphroot"] == str(tmp_path / "storage")
    assert files["storage.conf"]["storage"]["runroot"] == str(engine_files.volatile(config) / "storage")
    assert files["containers.conf"]["engine"]["lock_type"] == "file"
    assert files["registries.conf"]["registry"] == [{"location": "127.0.0.1:4004", "insecure": True}]
    assert files["registries.conf"]["unqualified-search-registries"] == []


def test_this_machine_can_be_looked_at(tmp_path: Path) -> None:
    facts = host.look(tmp_path / "not" / "yet")
    assert facts.kernel > (0, 0)
    assert facts.memory > 0
    assert facts.filesystem != "unknown"


@pytest.mark.parametrize(
    ("changes", "subject", "level"),
    [
        ({}, "podman", "ok"),
        ({"podman": (4, 3, 1)}, "podman", "warn"),
        ({"podman": (3, 4, 4)}, "podman", "fail"),
        ({"podman": ()}, "podman", "fail"),
        ({"missing": ("nft",)}, "nft", "fail"),
        ({"runtimes": ()}, "OCI runtime", "fail"),
        ({"cgroups": "hybrid"}, "control groups", "warn"),
        ({"kernel": (5, 15)}, "kernel", "warn"),
        ({"open_files": 1024}, "open files", "warn"),
        ({"filesystem": "nfs4"}, "file system", "fail"),
        ({"subids": 0}, "user namespaces", "warn"),
        ({"memory": 2 * 1024**3}, "memory", "warn"),
        ({"disk": 10 * 1024**3}, "disk", "warn"),
        ({"disk": 1024**3}, "disk", "fail"),
    ],
)
def test_findings_about_the_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, changes: dict[str, Any], subject: str, level: str) -> None:
    monkeypatch.setattr(host, "look", lambda _: replace(MODERN, **changes))
    found = {finding.subject: finding for finding in findings(Config(home=tmp_path))}
    assert found[subject].level == level
    assert level == "ok" or found[subject].fix


def test_findings_about_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(host, "look", lambda _: MODERN)
    config = Config.model_validate({"home": tmp_path, "listen": {"host": "0.0.0.0"}, "network": {"allow": ["127.0.0.0/8"]}})  # noqa: S104
    found = {finding.subject: finding for finding in findings(config)}
    assert found["listen"].level == "warn"
    assert found["network.allow"].level == "warn"
    quiet = {finding.subject for finding in findings(Config(home=tmp_path))}
    assert not {"listen", "network.allow"} & quiet


def test_a_mirror_that_sessions_cannot_reach_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(host, "look", lambda _: MODERN)
    given = sources.read(Config())
    monkeypatch.setattr(sources, "read", lambda _: replace(given, hosts=frozenset({("127.0.0.1", 3141)})))
    found = {finding.subject: finding for finding in findings(Config(home=tmp_path))}
    assert found["mirrors"].level == "warn"
    assert "sessions cannot reach it" in found["mirrors"].text
    assert found["mirrors"].fix
    assert "loopback" not in found, "this machine has the whole of 127.0.0.0/8"
    monkeypatch.setattr(sources, "read", lambda _: given)
    monkeypatch.setattr(probes, "free", lambda _host, _port: False)
    found = {finding.subject: finding for finding in findings(Config(home=tmp_path))}
    assert found["loopback"].level == "fail"
    assert "mirrors" not in found


def test_a_range_that_is_in_use_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    routes = tmp_path / "ip"
    routes.write_text(
        "#!/bin/sh\necho 'default via 192.0.2.1 dev eth0'\necho '10.77.3.0/24 dev docker0 proto kernel'\necho '10.78.0.0/17 dev bsess8585'\n"
    )
    routes.chmod(0o755)
    monkeypatch.setattr(host, "look", lambda _: MODERN)
    monkeypatch.setenv("PATH", str(tmp_path))
    sites = {pool: Config.model_validate({"home": tmp_path, "network": {"pool": pool}}) for pool in ("10.77.0.0/16", "10.78.0.0/16")}
    levels = {pool: next(one.level for one in findings(site) if one.subject == "network.pool") for pool, site in sites.items()}
    assert levels == {"10.77.0.0/16": "fail", "10.78.0.0/16": "ok"}


@pytest.mark.parametrize(
    ("home", "said"),
    [
        ("/srv/binder", ""),
        ("/srv/my binder", "has characters other than"),
        ("/srv/a:b", "has characters other than"),
        ("/srv/a,b", "has characters other than"),
        ("/srv/données", "has characters other than"),
        ("/srv/100%", "has characters other than"),
        ("/srv/" + "x" * 71, "has 76 characters"),
        ("/etc/passwd", "is a file"),
    ],
)
def test_a_home_that_cannot_be_one(home: str, said: str) -> None:
    found = place.objection(Path(home))
    assert said in found
    assert bool(found) == bool(said)


def test_a_home_behind_a_closed_door() -> None:
    short = Path(tempfile.mkdtemp(prefix="bo"))
    try:
        assert place.objection(short / "home").startswith(f"{short} lets nobody but its owner pass")
        short.chmod(0o711)
        assert place.objection(short / "home") == ""
    finally:
        short.rmdir()


def test_ports_that_others_have(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        config = Config.model_validate({"home": tmp_path, "listen": {"port": other.getsockname()[1] - 1}})
        assert other.getsockname()[1] in ports.taken(config, set()), "the proxy's own API"
        assert other.getsockname()[1] not in ports.taken(config, {"proxy"})


def test_another_binder_with_the_same_range(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(engine_files, "VOLATILE", tmp_path / "run")
    monkeypatch.setattr(pool, "_routes", lambda _own: [])
    sites = [Config.model_validate({"home": tmp_path / name, "network": {"pool": "10.77.0.0/16"}}) for name in ("one", "two")]
    for site in sites:
        site.home.mkdir()
        engine_files.volatile(site).mkdir(parents=True)
    assert pool.conflict(sites[1]) == ""
    pool.claim(sites[0])
    assert pool.conflict(sites[0]) == "", "its own"
    assert "another Binder" in pool.conflict(sites[1])
    sites[0].home.rmdir()
    assert pool.conflict(sites[1]) == "", "a home that somebody removed holds no range"


def test_a_site_is_taken_down_by_the_names_it_was_brought_up_with(tmp_path: Path) -> None:
    first = Config.model_validate({"home": tmp_path, "listen": {"port": 4000}, "network": {"pool": "10.77.0.0/16"}})
    (tmp_path / "etc").mkdir()
    assert standing.as_it_stands(first) == first
    assert not standing.known(first), "never up"
    standing.remember(first)
    assert standing.known(first)
    now = Config.model_validate({"home": tmp_path, "listen": {"port": 5000}, "network": {"pool": "10.78.0.0/16", "sessions": "none"}})
    stands = standing.as_it_stands(now)
    assert (stands.listen.port, stands.network.pool, stands.network.sessions) == (4000, "10.77.0.0/16", "none")


def test_a_removal_that_was_interrupted_can_be_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, sign = tmp_path / "home", tmp_path / "home" / "etc" / "containers.conf"
    for name in ("etc/containers.conf", "etc/networks/x.json", "etc/storage.conf", "storage/a/b", "config.yaml"):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text("x")
    (home / "link").symlink_to(tmp_path)
    for stuck in (home / "storage", sign.parent / "networks"):
        with monkeypatch.context() as patched:
            whole = shutil.rmtree

            def rmtree(path: Path, *, stuck: Path = stuck, whole: Any = whole) -> None:
                if path == stuck:
                    raise OSError(errno.EBUSY, "busy")
                whole(path)

            patched.setattr(shutil, "rmtree", rmtree)
            with pytest.raises(OSError, match="busy"):
                up.removed(home, sign)
        assert sign.exists()
    up.removed(home, sign)
    assert list(tmp_path.iterdir()) == []
