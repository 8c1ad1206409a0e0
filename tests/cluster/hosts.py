"""Servers for playbooks: systemd in privileged podman containers with SSH, on a network of their own, with storage of their own.

Nothing of them outlives `Hosts.destroy`, which also takes away what a killed run has left in its home.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING, Final

from binder_onprem.config import Config
from binder_onprem.host import engine_files
from binder_onprem.host import machine as host
from tests.cluster import claims, roots

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SSH_FAILED: Final = 255
"""What `ssh` itself ends with."""


@dataclass
class Hosts:
    """The servers; `home` holds everything about them."""

    home: Path
    subnet: IPv4Network
    mounts: dict[Path, str] = field(default_factory=dict)
    """Directories of this machine that every host sees, read only: where."""

    @property
    def config(self) -> Config:
        """Of their podman."""
        return Config(home=self.home)

    @property
    def network(self) -> str:
        """Their network's name. netavark calls a network's chain of firewall rules by it, and the last one that goes takes the chain's rules with it:
        with one name for all, hosts of one run would take the Internet and the names away from those of another."""
        return f"hosts{self.subnet.network_address.packed[2]}"

    @property
    def names(self) -> tuple[str, ...]:
        """Those that there are, in the order they were made."""
        return tuple(file.name for file in sorted((self.home / "hosts").iterdir(), key=lambda file: int(file.read_text())))

    @classmethod
    def new(cls, home: Path, mounts: dict[Path, str] | None = None) -> Hosts:
        """Prepare an engine and a network; no host yet."""
        hosts = cls(home, claims.take(home), mounts or {})
        for folder in ("etc/networks", "etc/keys", "hosts", "run", "storage", "tmp"):
            (home / folder).mkdir(parents=True)
        (engine_files.volatile(hosts.config) / "libpod").mkdir(parents=True, exist_ok=True)
        for name, text in engine_files.files(hosts.config, host.look(home)).items():
            (home / "etc" / name).write_text(text)
        (home / "etc" / "networks" / f"{hosts.network}.json").write_text(json.dumps(hosts._network()))
        facts = {"subnet": str(hosts.subnet), "mounts": {str(path): target for path, target in hosts.mounts.items()}}
        (home / "facts.json").write_text(json.dumps(facts))
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(home / "key")], check=True)
        for account in ("root", "it", "eyes"):
            (home / "etc" / "keys" / account).write_text((home / "key.pub").read_text())
        return hosts

    @classmethod
    def at(cls, home: Path) -> Hosts:
        """Those that `new` made there."""
        facts = json.loads((home / "facts.json").read_text())
        return cls(home, IPv4Network(facts["subnet"]), {Path(path): target for path, target in facts["mounts"].items()})

    def _network(self) -> dict[str, object]:
        return {
            "name": self.network,
            "id": f"{self.subnet.network_address.packed[2]:064x}",
            "driver": "bridge",
            "network_interface": f"bonet{self.subnet.network_address.packed[2]}",
            "created": "2026-01-01T00:00:00Z",
            "subnets": [{"subnet": str(self.subnet), "gateway": str(self.subnet[1])}],
            "ipv6_enabled": False,
            "internal": False,
            "dns_enabled": True,
            "ipam_options": {"driver": "host-local"},
        }

    def podman(self, *words: str, check: bool = True, seconds: float = 300) -> str:
        """Podman on these hosts' storage; both channels."""
        done = subprocess.run(
            ["podman", *words],
            env=engine_files.environment(self.config),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
            check=False,
        )
        assert not check or done.returncode == 0, done.stdout[-3000:]
        return done.stdout.strip()

    def start(self, *names: str, suite: str = "bookworm") -> None:
        """Make hosts of a release and wait until they run."""
        first = max((int(file.read_text()) for file in (self.home / "hosts").iterdir()), default=9) + 1
        self._make(dict(zip(names, range(first, first + len(names)), strict=True)), suite)

    def replace(self, *names: str, suite: str = "bookworm") -> None:
        """New machines with nothing on them, under the names and addresses of old ones, which are gone with all they had."""
        numbers = {name: int((self.home / "hosts" / name).read_text()) for name in names}
        for name in names:
            self.remove(name)
        self._make(numbers, suite)

    def _make(self, numbers: dict[str, int], suite: str) -> None:
        root = roots.tree(suite)
        mounts = [f"--volume={path}:{target}:ro" for path, target in ((self.home / "etc" / "keys", "/etc/ssh/keys"), *self.mounts.items())]
        always = ("--privileged", "--systemd=always", "--cgroupns=private", f"--network={self.network}", "--no-hosts")
        for name, number in numbers.items():
            (self.home / "hosts" / name).write_text(str(number))
            own = (f"--name={name}", f"--hostname={name}", f"--ip={self.subnet[number]}", f"--volume={name}:/var/lib")
            self.podman("run", "--detach", *own, *always, *mounts, "--rootfs", f"{root}:O", "/sbin/init")
        for name in numbers:
            self.wait(name)
        self._introduce()

    def _introduce(self) -> None:
        """Every host knows every other by name."""
        known = "".join(f"{self.address(name)} {name}\n" for name in self.names)
        for name in self.names:
            self.write(name, "/etc/hosts", f"127.0.0.1 localhost\n{known}", "644")

    def wait(self, name: str, seconds: float = 90) -> None:
        """Until a host has started and SSH answers."""
        end = time.monotonic() + seconds
        state = ""
        while time.monotonic() < end:
            state = self.podman("exec", name, "systemctl", "is-system-running", "--wait", check=False)
            if state.endswith(("running", "degraded")) and self.run(name, "true", check=False).returncode == 0:
                return
            time.sleep(0.2)
        raise TimeoutError(f"{name} is {state}: {self.podman('exec', name, 'systemctl', '--failed', '--no-legend', check=False)}")

    def address(self, name: str) -> str:
        """Its address, which this machine and the other hosts reach it by."""
        return str(self.subnet[int((self.home / "hosts" / name).read_text())])

    @property
    def gateway(self) -> str:
        """This machine's address on the hosts' network."""
        return str(self.subnet[1])

    @property
    def ssh_options(self) -> tuple[str, ...]:
        """What `ssh` and Ansible need for the hosts."""
        quiet = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", "ConnectTimeout=10")
        return ("-F", "/dev/null", "-i", str(self.home / "key"), *(word for option in quiet for word in ("-o", option)))

    def run(self, name: str, command: str, *, user: str = "root", given: bytes | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
        """A shell command on a host, by SSH."""
        words = ["ssh", *self.ssh_options, f"{user}@{self.address(name)}", "--", command]
        found = subprocess.run(words, input=given or b"", capture_output=True, timeout=600, check=False)
        done = subprocess.CompletedProcess(words, found.returncode, found.stdout.decode(errors="replace"), found.stderr.decode(errors="replace"))
        if check and done.returncode:
            said = f"{done.stdout[-3000:]}{done.stderr[-3000:]}".strip()
            last = said.splitlines()[-1] if said else ""
            if done.returncode == SSH_FAILED:
                last += f" (the host: {self.podman('ps', '--all', f'--filter=name=^{name}$', '--format={{.Status}}', check=False)})"
            # A summary of tests shows the first line alone.
            raise AssertionError(f"{name} ended with {done.returncode}: {last}: {command}\n{said}")
        return done

    def write(self, name: str, path: str, data: str | bytes, mode: str = "600") -> None:
        """Put a file on a host."""
        quoted = shlex.quote(path)
        content = data if isinstance(data, bytes) else data.encode()
        self.run(name, f"mkdir -p $(dirname {quoted}) && umask 077 && cat > {quoted} && chmod {mode} {quoted}", given=content)

    def inventory(self, groups: dict[str, tuple[str, ...]], **variables: object) -> dict[str, object]:
        """An Ansible inventory of these hosts, reached as IT reaches them: SSH as an administrator who may use sudo."""
        known = {
            name: {"ansible_host": self.address(name), "ansible_user": "it", "ansible_become": True, "ansible_python_interpreter": "/usr/bin/python3"}
            for name in self.names
        }
        common = " ".join(shlex.quote(word) for word in self.ssh_options if word not in ("-i", str(self.home / "key")))
        shared = {"ansible_ssh_private_key_file": str(self.home / "key"), "ansible_ssh_common_args": common, **variables}
        children = {group: {"hosts": {name: known[name] for name in members}} for group, members in groups.items()}
        return {"all": {"vars": shared, "children": children}}

    def power_off(self, name: str) -> None:
        """As if the plug were pulled."""
        self.podman("kill", "--signal=KILL", name)

    @contextmanager
    def power_cut(self, name: str, when: Callable[[Path], bool]) -> Iterator[None]:
        """The plug is pulled in the moment when something is so of the host's files (below a path), whatever goes on inside; then it starts again."""
        init = int(self.podman("inspect", "--format={{.State.Pid}}", name))
        over, cut = threading.Event(), threading.Event()

        def watch() -> None:
            while not over.wait(0.01) and not when(Path(f"/proc/{init}/root")):
                pass
            if not over.is_set():
                os.kill(init, signal.SIGKILL)
                cut.set()
                self.podman("wait", name)
                self.podman("start", name)

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
        assert cut.is_set(), f"{name} has never come to where its power was to go"
        self.wait(name)

    def power_on(self, name: str) -> None:
        """Start it again with what was on its disk."""
        self.podman("start", name)
        self.wait(name)

    def remove(self, name: str) -> None:
        """Take a host away, its disk too."""
        end = time.monotonic() + 60
        while self.podman("ps", "--all", "--quiet", f"--filter=name=^{name}$"):
            self.podman("stop", "--time=0", name, check=False)
            self.podman("rm", "--force", "--time=0", "--volumes", name, check=False)
            assert time.monotonic() < end, f"{name} does not go away"
        self.podman("volume", "rm", "--force", name, check=False)
        (self.home / "hosts" / name).unlink(missing_ok=True)

    def destroy(self) -> None:
        """Take everything away, and put the kernel's settings back."""
        with suppress(AssertionError, subprocess.TimeoutExpired):
            for name in self.names:
                self.remove(name)
        with suppress(AssertionError, subprocess.TimeoutExpired):
            self.podman("system", "reset", "--force")
        subprocess.run(["umount", str(self.home / "storage" / "overlay")], capture_output=True, check=False)
        shutil.rmtree(self.home, ignore_errors=True)
        shutil.rmtree(engine_files.volatile(self.config), ignore_errors=True)
        claims.give_back(self.subnet)


@contextmanager
def running(mounts: dict[Path, str] | None = None) -> Iterator[Hosts]:
    """An engine for hosts while the context lasts; everything is gone at the end."""
    hosts = Hosts.new(Path(tempfile.mkdtemp(prefix="boc", dir="/var/tmp")), mounts)
    try:
        yield hosts
    finally:
        hosts.destroy()
