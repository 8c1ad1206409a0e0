"""systemd as the keeper of the parts, where it is PID 1.

Units ``binder-onprem-NAME.service`` below a target ``binder-onprem.target``; a site whose port is not the default has the port in those names,
so that several stand side by side. A oneshot unit puts address, networks' rules and firewall in place before anything else, also at boot.
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from binder_onprem.config import CONFIG_VARIABLE, DEFAULT_HOME, HOME_VARIABLE
from binder_onprem.errors import HostUnfit
from binder_onprem.host.supervision import Status

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from binder_onprem.config import Config
    from binder_onprem.host.parts import Part
    from binder_onprem.host.supervision import State

UNITS: Final = Path("/etc/systemd/system")
STATES: Final[Mapping[str, State]] = {
    "active": "running",
    "reloading": "running",
    "activating": "starting",
    "deactivating": "stopped",
    "inactive": "stopped",
    "failed": "failed",
}
HARDENED: Final = (
    "CapabilityBoundingSet=",
    "LockPersonality=yes",
    "NoNewPrivileges=yes",
    "PrivateDevices=yes",
    "PrivateTmp=yes",
    "ProtectClock=yes",
    "ProtectControlGroups=yes",
    "ProtectHome=read-only",
    "ProtectHostname=yes",
    "ProtectKernelLogs=yes",
    "ProtectKernelModules=yes",
    "ProtectKernelTunables=yes",
    "ProtectProc=invisible",
    "ProtectSystem=strict",
    "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK",
    "RestrictNamespaces=yes",
    "RestrictRealtime=yes",
    "RestrictSUIDSGID=yes",
    "SystemCallArchitectures=native",
    "SystemCallErrorNumber=EPERM",
    "SystemCallFilter=@system-service",
    "UMask=0077",
)
"""For the parts that run as an ordinary user."""
LOOSER: Final = ("CapabilityBoundingSet", "PrivateTmp", "ProtectProc", "ProtectSystem")
"""What is otherwise for parts of root's that are confined: they read settings wherever those lie, and look whether sessions live."""


class Systemd:
    """Satisfies `supervision.Supervision`.

    Args:
        config: The site.
        units: Where units are written; another directory in tests.
    """

    def __init__(self, config: Config, units: Path = UNITS) -> None:
        self._config = config
        self._units = units
        self._site = "binder-onprem" if config.home == DEFAULT_HOME else f"binder-onprem-{config.listen.port}"

    def prepare(self, parts: Sequence[Part]) -> frozenset[str]:
        """See `supervision.Supervision.prepare`."""
        wanted = {self._unit(part): self.text(part) for part in parts}
        wanted[self._ground] = self._ground_text(parts)
        wanted[f"{self._site}.target"] = f"[Unit]\nDescription=Binder at {self._config.public_url}\n\n[Install]\nWantedBy=multi-user.target\n"
        changed = [name for name, text in wanted.items() if not (self._units / name).exists() or (self._units / name).read_text("utf-8") != text]
        gone = [path.name for path in self._units.glob(f"{self._site}-*.service") if path.name not in wanted and self._owned(path)]
        for name in (*gone, *(name for name in changed if name.endswith(".service"))):
            _systemctl("stop", name, fine=True)
        for name in gone:
            self._wanted(name).unlink(missing_ok=True)
            (self._units / name).unlink()
        for name in changed:
            self._write(name, wanted[name])
        if changed or gone:
            _systemctl("daemon-reload")
        _systemctl("enable", f"{self._site}.target")
        states = self.states()
        return frozenset(part.name for part in parts if not states[part.name].alive)

    def start(self, name: str) -> None:
        """See `supervision.Supervision.start`."""
        _systemctl("start", "--no-block", f"{self._site}-{name}.service")
        # Not before: the target would start the daemon long before there is an image that it can serve.
        if all(status.alive for status in self.states().values()):
            _systemctl("start", "--no-block", f"{self._site}.target")

    def stop(self, name: str) -> None:
        """See `supervision.Supervision.stop`."""
        _systemctl("stop", f"{self._site}-{name}.service", fine=True)

    def states(self) -> dict[str, Status]:
        """See `supervision.Supervision.states`."""
        units = [path.name for path in sorted(self._units.glob(f"{self._site}-*.service")) if self._owned(path) and path.name != self._ground]
        return {name.removeprefix(f"{self._site}-").removesuffix(".service"): _status(name) for name in units}

    def leave(self) -> None:
        """See `supervision.Supervision.leave`."""
        units = [path for path in self._units.glob(f"{self._site}-*.service") if self._owned(path)]
        target = self._units / f"{self._site}.target"
        if target.exists():
            _systemctl("disable", "--now", target.name, fine=True)
        for path in units:
            _systemctl("stop", path.name, fine=True)
        for path in (*units, target):
            self._wanted(path.name).unlink(missing_ok=True)
            path.unlink(missing_ok=True)
        with suppress(OSError):
            self._wanted("").rmdir()
        if units:
            _systemctl("daemon-reload")
            _systemctl("reset-failed", *[path.name for path in units], fine=True)

    def text(self, part: Part) -> str:
        """The unit of a part."""
        after = " ".join([self._ground, *(f"{self._site}-{name}.service" for name in part.after)])
        env = {**dict(part.env), "BINDER_ONPREM_REVISION": part.revision()}
        lines = [
            "# Written by `binder-onprem up`; changes are lost.",
            "[Unit]",
            f"Description=Binder at {self._config.public_url}: {part.name}",
            f"X-Home={self._config.home}",
            f"PartOf={self._site}.target",
            f"Requires={self._ground}",
            "Wants=network-online.target",
            f"After=network-online.target {after}",
            f"RequiresMountsFor={_quoted(str(self._config.home))}",
            "StartLimitIntervalSec=0",
            "",
            "[Service]",
            "Type=exec",
            "ExecStart=" + " ".join(_quoted(word).replace("$", "$$") for word in part.argv),
            *(f"Environment={_quoted(f'{name}={value}')}" for name, value in env.items()),
            *([f"EnvironmentFile={self._config.secrets / part.name}.env"] if part.hidden else []),
            "Restart=always",
            "RestartSec=1",
            f"TimeoutStopSec={part.grace}",
            *([] if part.group else ["KillMode=process", "Delegate=yes"]),
            *_confinement(part),
            "LimitNOFILE=infinity" if not part.user else "LimitNOFILE=65536",
            "",
            "[Install]",
            f"WantedBy={self._site}.target",
        ]
        return "\n".join(lines) + "\n"

    @property
    def _ground(self) -> str:
        return f"{self._site}-ground.service"

    def _ground_text(self, parts: Sequence[Part]) -> str:
        wants = " ".join(self._unit(part) for part in parts)
        env = {HOME_VARIABLE: str(self._config.home)}
        named = next((dict(part.env)[CONFIG_VARIABLE] for part in parts if CONFIG_VARIABLE in dict(part.env)), None)
        env |= {CONFIG_VARIABLE: named} if named else {}
        return (
            "# Written by `binder-onprem up`; changes are lost.\n"
            f"[Unit]\nDescription=Binder at {self._config.public_url}: address and firewall\nX-Home={self._config.home}\n"
            f"PartOf={self._site}.target\nBefore={wants}\nAfter=network.target nftables.service\n"
            f"RequiresMountsFor={_quoted(str(self._config.home))}\n\n"
            "[Service]\nType=oneshot\nRemainAfterExit=yes\n"
            f"ExecStart={_quoted(sys.executable)} -m binder_onprem.host.ground\n"
            + "".join(f"Environment={_quoted(f'{name}={value}')}\n" for name, value in env.items())
            + f"\n[Install]\nWantedBy={self._site}.target\n"
        )

    def _unit(self, part: Part) -> str:
        return f"{self._site}-{part.name}.service"

    def _owned(self, path: Path) -> bool:
        """Whether the unit is this site's: ``binder-onprem-*`` also matches the units of sites with a port in their name."""
        return f"X-Home={self._config.home}\n" in path.read_text("utf-8")

    def _wanted(self, name: str) -> Path:
        """The link by which the target starts a unit at boot."""
        return self._units / f"{self._site}.target.wants" / name

    def _write(self, name: str, text: str) -> None:
        (self._units / name).write_text(text, encoding="utf-8")
        if name.endswith(".service"):
            link = self._wanted(name)
            link.parent.mkdir(exist_ok=True)
            if not link.is_symlink():
                link.symlink_to(f"../{name}")


def _confinement(part: Part) -> list[str]:
    writes = [f"ReadWritePaths={_quoted(str(path))}" for path in part.writes]
    if part.user:
        return [f"User={part.user}", *HARDENED, *writes]
    if part.capabilities is None:
        return []
    same = [line for line in HARDENED if line.partition("=")[0] not in LOOSER]
    return [*same, "ProtectSystem=full", f"CapabilityBoundingSet={' '.join(part.capabilities)}", *writes]


def _quoted(word: str) -> str:
    """A word of a unit file: quotes, backslashes and specifiers mean themselves."""
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%") + '"'


def _status(unit: str) -> Status:
    answer = _systemctl("show", "--property=ActiveState", "--property=MainPID", unit)
    facts = dict(line.split("=", 1) for line in answer.splitlines() if "=" in line)
    return Status(STATES.get(facts.get("ActiveState", ""), "failed"), int(facts.get("MainPID", 0)))


def _systemctl(*arguments: str, fine: bool = False) -> str:
    """Run systemctl; `fine`: whatever it says is fine."""
    done = subprocess.run(("systemctl", *arguments), capture_output=True, text=True, timeout=180, check=False, stdin=subprocess.DEVNULL)
    if done.returncode and not fine:
        raise HostUnfit(f"systemctl {arguments[0]} failed. See `journalctl -xe`, then run `binder-onprem up` again.")
    return done.stdout
