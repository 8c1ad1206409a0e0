"""What real containers reach through the real rules. Every address probed is this machine's own or a neighbour's; listeners count what comes."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from binder_onprem.config import Config
from binder_onprem.host import engine_files, firewall, ground, networks, parts, probes, site_files, up
from binder_onprem.host import machine as host
from binder_onprem.host.sources import Sources
from tests.e2e.stand import free_pool, free_ports

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.real, pytest.mark.skipif(os.geteuid() != 0, reason="needs root: run the tests by `make test`")]

PROBE = """
import socket, sys
for target in sys.argv[1:]:
    host, port = target.rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), 2).close()
        print("open", target)
    except OSError:
        print("shut", target)
"""
LIMITS = ("--cap-drop=all", "--user=1000")


class Listener:
    """Counts connections on every address of this machine."""

    def __init__(self) -> None:
        self.count = 0
        self._socket = socket.create_server(("0.0.0.0", 0))  # noqa: S104 - that containers do not reach it is what is tested
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self._socket.accept()[0].close()
                self.count += 1

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


class Engine:
    """Podman's service of a site of its own; containers run this machine's own Python from an overlay of its root."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def podman(self, *words: str) -> str:
        env = dict(engine_files.environment(self.config))
        done = subprocess.run(["podman", *words], env=env, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def probe(self, network: str, *targets: str) -> dict[str, str]:
        said = self.podman("run", "--rm", f"--network={network}", *LIMITS, "--rootfs", "/:O", "/usr/bin/python3", "-c", PROBE, *targets)
        return {target: state for state, target in (line.split() for line in said.splitlines())}


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    home = Path(tempfile.mkdtemp(prefix="bo", dir="/var/tmp"))
    config = Config.model_validate({"home": home, "listen": {"port": free_ports(8)}, "network": {"pool": free_pool()}})
    site_files.write(config, host.look(home))
    service = next(part for part in parts.parts(config) if part.name == "podman")
    with (home / "podman.log").open("w") as log, subprocess.Popen(service.argv, env=dict(service.env), stdout=log, stderr=log) as process:
        try:
            assert not probes.silent([service], 20), (home / "podman.log").read_text()
            networks.make(config)
            networks.make(config)
            yield Engine(config)
        finally:
            process.terminate()
            process.wait(10)
            ground.take_away(config)
            for line in reversed(Path("/proc/self/mounts").read_text().splitlines()):
                if line.split()[1].startswith(f"{home}/") or line.split()[1].startswith(f"{engine_files.volatile(config)}/"):
                    subprocess.run(["umount", "--lazy", line.split()[1]], check=False)
            shutil.rmtree(home)
            shutil.rmtree(engine_files.volatile(config))


@pytest.fixture
def listener() -> Iterator[Listener]:
    listener = Listener()
    yield listener
    listener.close()


def own_address() -> str | None:
    """An address of this machine that others see; asked of the routing table, nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
        probe.connect(("192.0.2.254", 9))
        return str(probe.getsockname()[0])
    return None


def lay(config: Config, *hosts: tuple[str, int]) -> None:
    ground.put_gate_address(config)
    firewall.Firewall(config, Sources(b"", None, "", None, None, None, None, (), frozenset(hosts))).put()


@pytest.mark.parametrize("network", [networks.SESSIONS, networks.BUILDS])
def test_this_machine_is_out_of_reach_and_would_not_be_without_the_rules(engine: Engine, listener: Listener, network: str) -> None:
    config = engine.config
    gateways = {networks.SESSIONS: config.session_network[1], networks.BUILDS: config.build_network[1]}
    targets = [f"{address}:{listener.port}" for address in (gateways[network], config.gate_address, own_address()) if address]
    firewall.remove(config)
    ground.put_gate_address(config)
    assert set(engine.probe(network, *targets).values()) == {"open"}
    before = listener.count
    lay(config)
    assert set(engine.probe(network, *targets).values()) == {"shut"}
    assert listener.count == before


def test_builds_reach_the_gate_and_sessions_do_not(engine: Engine) -> None:
    config = engine.config
    lay(config)
    target = f"{config.gate_address}:{config.gate_port}"
    with socket.create_server((config.gate_address, config.gate_port)):
        assert engine.probe(networks.BUILDS, target) == {target: "open"}
        assert engine.probe(networks.SESSIONS, target) == {target: "shut"}


def test_neighbours_are_out_of_reach_and_the_published_port_is_not(engine: Engine) -> None:
    config = engine.config
    lay(config)
    serve = ("/usr/bin/python3", "-c", "import socket\ns = socket.create_server(('', 8888))\nwhile True: s.accept()[0].close()")
    first = "neighbour"
    engine.podman(
        "run", "-d", "--name", first, f"--network={networks.SESSIONS}", "-p", f"{config.session_address}::8888", *LIMITS, "--rootfs", "/:O", *serve
    )
    try:
        target = f"{engine.podman('inspect', first, '--format', '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}')}:8888"
        published = int(engine.podman("port", first, "8888").rsplit(":", 1)[1])
        assert reached(config.session_address, published)
        assert engine.probe(networks.SESSIONS, target) == {target: "shut"}
        assert engine.probe(networks.BUILDS, target) == {target: "shut"}
        firewall.remove(config)
        # A busy machine answers late; shut is for ever.
        assert any(engine.probe(networks.SESSIONS, target) == {target: "open"} for _ in range(4))
    finally:
        engine.podman("rm", "--force", "--time", "0", first)


@pytest.mark.parametrize("helper", ["works", "fails"])
def test_containers_that_end_together_leave_no_namespaces_and_no_rules(engine: Engine, helper: str) -> None:
    config, file = engine.config, engine.config.home / "etc" / "containers.conf"
    published = ("-p", f"{config.session_address}::8888")
    for _ in range(3):
        engine.podman("run", "-d", f"--network={networks.SESSIONS}", *published, *LIMITS, "--rootfs", "/:O", "/usr/bin/sleep", "600")
    names = engine.podman("ps", "--quiet").split()
    namespaces = [Path(found) for found in engine.podman("inspect", "--format", "{{.NetworkSettings.SandboxKey}}", *names).split()]
    assert len(set(namespaces)) == 3
    assert len(forwarded(config)) >= 3
    text = file.read_text()
    try:
        if helper == "fails":
            failing = config.home / "tmp" / "netavark"
            failing.write_text("#!/bin/sh\nexit 1\n")
            failing.chmod(0o755)
            file.write_text(text.replace("[engine]", f'[engine]\nhelper_binaries_dir = ["{failing.parent}"]'))
        up._end_containers(config)
        assert engine.podman("ps", "--all", "--quiet") == ""
    finally:
        file.write_text(text)
    if helper == "fails":
        assert forwarded(config)
    ground.take_away(config)
    assert [name for name in namespaces if name.exists()] == []
    assert forwarded(config) == []
    networks.make(config)


def forwarded(config: Config) -> list[str]:
    """Rules of podman's that name an address of the site's range."""
    listed = subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=True).stdout
    start = str(config.session_network.network_address).rsplit(".", 2)[0]
    return [line.strip() for line in listed.partition("table ip nat")[2].splitlines() if f" {start}." in line]


def test_no_address_of_ipv6_in_containers(engine: Engine) -> None:
    command = ("/usr/bin/python3", "-c", "print(open('/proc/net/if_inet6').read())")
    assert engine.podman("run", "--rm", f"--network={networks.SESSIONS}", *LIMITS, "--rootfs", "/:O", *command) == ""


def test_rules_stand_are_idempotent_and_go(engine: Engine) -> None:
    config = engine.config
    for _ in range(2):
        lay(config)
        assert ground.lies(config)
    for _ in range(2):
        ground.take_away(config)
        assert not ground.lies(config)
    rules = subprocess.run(["iptables", "-S", "INPUT"], capture_output=True, text=True, check=True).stdout
    assert f'"binder-onprem {config.listen.port}"' not in rules


def reached(address: str, port: int) -> bool:
    for _ in range(50):
        try:
            socket.create_connection((address, port), 2).close()
        except OSError:
            time.sleep(0.1)
        else:
            return True
    return False
