"""Bringing a site up and taking it down, step by step. Called by the commands; every step may be repeated, and one with nothing to do does nothing.

`up` restarts only what runs in another revision than the one written down; sessions live through that. `down` ends sessions and builds too, and
leaves the data.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from binder_onprem.errors import Busy, HostUnfit
from binder_onprem.host import engine_files, forwarding, ground, loginfiles, place, pool, ports, probes, site_files, sources, standing
from binder_onprem.host import machine as host
from binder_onprem.host.parts import Part, parts
from binder_onprem.host.supervision import Supervision, supervision
from binder_onprem.logs import redact

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from binder_onprem.config import Config

ENGINE: Final = ("registry", "podman", "samples", "proxy")
"""What the base image and the hub need."""
PATIENCE: Final = 90
"""Seconds a part has until it answers."""
DEATHS: Final = 8
"""Seconds that it may be seen dead in between."""
STOPPING: Final = 30


class Steps(Protocol):
    """Where progress is shown."""

    def step(self, title: str) -> AbstractContextManager[None]:
        """Show that a step goes on, then how long it took."""
        ...

    def say(self, line: str) -> None:
        """A line of the step that goes on."""
        ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """What `up` did.

    Attributes:
        changed: Parts that were started or restarted; empty: it was up.
        seconds: How long it took.
    """

    changed: tuple[str, ...]
    seconds: float


def up(config: Config, steps: Steps) -> Outcome:
    """Bring the site up, or to what the settings now say.

    Raises:
        HostUnfit: The machine lacks something, or a part does not answer; the message names the fix.
        Busy: Another `up` or `down` is at work.
    """
    start = time.monotonic()
    _must_be_root()
    if objection := place.objection(config.home) or loginfiles.objection(config):
        raise HostUnfit(objection)
    with _alone(config):
        facts = host.look(config.home)
        _must_do(facts, host.wanted(config))
        _leave(standing.as_it_stands(config), config, facts, steps)
        site_files.write(config, facts)
        keeper = supervision(config, facts)
        running = {name for name, status in keeper.states().items() if status.alive}
        wanted = parts(config)
        down = keeper.prepare(wanted)
        if not down and ground.lies(config) and not probes.silent(wanted, 0):
            return Outcome((), time.monotonic() - start)
        if taken := ports.taken(config, running):
            raise HostUnfit(ports.advice(taken))
        if used := pool.conflict(config):
            raise HostUnfit(f"{used}. {pool.FIX}")
        pool.claim(config)
        standing.remember(config)
        changed = _start(config, keeper, wanted, steps, set(down))
    return Outcome(changed, time.monotonic() - start)


def _start(config: Config, keeper: Supervision, wanted: tuple[Part, ...], steps: Steps, down: set[str]) -> tuple[str, ...]:
    with steps.step("Package sources"):
        learned = sources.learn(config)
    with steps.step("Gate address and firewall"):
        ground.lay(config)
    engine = [part for part in wanted if part.name in ENGINE]
    with steps.step("Engine, registry, proxy"):
        _run(config, keeper, engine)
    with steps.step("Networks"):
        from binder_onprem.host import networks  # noqa: PLC0415 - a second `up` does without podman's client

        networks.make(config)
    if not config.building_for:  # which fetches what the other machine has made
        with steps.step("Base image (the first time takes minutes)"):
            from binder_onprem.host import baseimage  # noqa: PLC0415 - same

            baseimage.make(config, learned, steps.say)
    with steps.step("Daemon" if config.building_for else "Hub and daemon"):
        down |= keeper.prepare(wanted)  # the base image may be another one now
        _run(config, keeper, [part for part in wanted if part.name not in ENGINE])
    return tuple(part.name for part in wanted if part.name in down)


def _run(config: Config, keeper: Supervision, wanted: list[Part]) -> None:
    """Start parts and wait until they answer; one that dies again and again is not waited for to the end."""
    for part in wanted:
        keeper.start(part.name)
    deaths = 0
    late: tuple[str, ...] = ()
    for _ in range(PATIENCE):
        late = probes.silent(wanted, 1)
        if not late:
            return
        states = keeper.states()
        deaths += any(states[name].state == "failed" for name in late)
        if deaths > DEATHS:
            break
    raise HostUnfit(_last_words(config, late))


def _last_words(config: Config, late: tuple[str, ...]) -> str:
    log = config.logs / "parts" / f"{late[0]}.log"
    if not log.exists():
        return f"{', '.join(late)}: no answer. See `journalctl -u 'binder-onprem*{late[0]}*'`, then run `binder-onprem check`."
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 2000))
        said = redact(" | ".join(file.read().decode("utf-8", "replace").splitlines()[-3:]))
    return f"{', '.join(late)}: no answer. The end of {log}: {said}"


def down(config: Config, steps: Steps) -> None:
    """Stop sessions, builds and every part; remove networks, firewall and the gate's address. Data stays. Absent is fine.

    Raises:
        Busy: Another `up` or `down` is at work.
    """
    _must_be_root()
    if not (config.home / "etc").is_dir():
        return
    with _alone(config):
        _down(standing.as_it_stands(config), host.look(config.home), steps)


def _down(config: Config, facts: host.Host, steps: Steps) -> None:
    keeper = supervision(config, facts)
    with steps.step("Daemon and hub"):
        for name in ("daemon", "hub"):
            keeper.stop(name)
    with steps.step("Sessions and builds"):
        _end_containers(config)
    with steps.step("Other parts"):
        keeper.leave()
    if standing.known(config):
        # One that was refused for another's range has laid nothing: the address of that name is the other's.
        with steps.step("Firewall and address"):
            ground.take_away(config)
    _unmount(config)


def _leave(before: Config, config: Config, facts: host.Host, steps: Steps) -> None:
    """Another port or range is in every name and rule: what stands under the old ones is taken down, sessions too, not left beside the new."""
    if (before.listen.port, before.network.pool) == (config.listen.port, config.network.pool):
        return
    steps.say(f"listen.port or network.pool was {before.listen.port}, {before.network.pool}: that is taken down first.")
    _down(before, facts, steps)


def _end_containers(config: Config) -> None:
    """By podman's command line, which needs no service."""
    if not (config.home / "etc" / "containers.conf").exists():
        return
    ids = _podman(config, "ps", "--all", "--quiet").split()
    if ids:
        namespaces = _podman(config, "inspect", "--format", "{{.NetworkSettings.SandboxKey}}", *ids).split()
        _podman(config, "stop", "--ignore", "--time", "3", *ids)
        _podman(config, "rm", "--force", "--ignore", "--volumes", *ids)
        for namespace in namespaces:  # none is left, unless podman's helper for networks has failed
            forwarding.forget(Path(namespace))
    for network in ("binder-sessions", "binder-builds"):
        _podman(config, "network", "rm", network)


def _podman(config: Config, *words: str) -> str:
    try:
        done = subprocess.run(
            ("podman", *words),
            capture_output=True,
            text=True,
            timeout=STOPPING * 10,
            check=False,
            stdin=subprocess.DEVNULL,
            env=dict(engine_files.environment(config)),
        )
    except OSError:
        return ""  # no podman: then nothing of it runs
    return done.stdout


def _unmount(config: Config) -> None:
    """Podman leaves mounts on its storage, the daemon those of projects; they would keep a directory from being removed."""
    places = (config.home, engine_files.volatile(config))
    mounts = [Path(line.split()[1]) for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()]
    for mount in sorted((path for path in mounts if any(root in path.parents for root in places)), reverse=True):
        # Projects' volumes are written back before this returns, unless something still holds one.
        if subprocess.run(("umount", str(mount)), capture_output=True, check=False).returncode:
            subprocess.run(("umount", "--lazy", str(mount)), capture_output=True, check=False)
    shutil.rmtree(engine_files.volatile(config), ignore_errors=True)
    with suppress(OSError):  # other sites of this machine have theirs in it
        engine_files.VOLATILE.rmdir()


def clean(config: Config, steps: Steps) -> None:
    """`down`, then remove the whole home.

    Raises:
        HostUnfit: The directory does not look like a home of ours.
    """
    down(config, steps)
    home = config.home.resolve()
    if not home.exists():
        return
    sign = home / "etc" / "containers.conf"
    if not sign.exists() or home in (Path("/"), Path.home()):
        raise HostUnfit(f"{home} does not look like the home of a Binder. Nothing was removed.")
    with steps.step(f"Removing {home}"):
        removed(home, sign)


def removed(home: Path, sign: Path) -> None:
    """Remove a home, the file that it is known by (`sign`, in a directory of it) last: interrupted, it can be repeated. Raises OSError."""
    for path in (*home.iterdir(), *sign.parent.iterdir()):
        if path in (sign, sign.parent):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    shutil.rmtree(home)


def _must_be_root() -> None:
    if os.geteuid():
        raise HostUnfit("Containers of this kind, their networks and their firewall need root. Run it with sudo.")


def _must_do(facts: host.Host, wanted: tuple[str, ...]) -> None:
    missing = (*facts.missing, *wanted)
    if missing or not facts.runtime:
        packages = sorted({host.PACKAGES.get(name, name) for name in missing} | (set() if facts.runtime else {"runc"}))
        raise HostUnfit(f"Missing on this machine: {', '.join(packages)}. Run `make up`, or: apt-get install {' '.join(packages)}")


@contextmanager
def _alone(config: Config) -> Iterator[None]:
    """One at a time; the kernel gives the lock back however the process ends."""
    config.run.mkdir(parents=True, exist_ok=True)
    with (config.run / "up.lock").open("w", encoding="ascii") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy("Another `up` or `down` is at work on this site. Wait for it, then try again.") from None
        yield
