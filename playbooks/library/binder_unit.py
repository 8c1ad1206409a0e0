#!/usr/bin/python
"""A systemd unit runs, starts at boot, and has read the files it reads: it is restarted where one of them is younger than its process.

So a play that was interrupted between a file and the restart is healed by the next one, which handlers are not. For files that the program takes up
without cutting anybody off (`reload_for`) it is reloaded, where they are younger than its youngest process: a reload makes new ones.
"""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

SETTLE = 0.5
"""Seconds in which a program that cannot live dies."""
PATIENCE = 120
"""Seconds until it must run; k3s comes up when its datastore does."""


def systemctl(module: AnsibleModule, *words: str) -> str:
    """Run systemctl; a failure is the module's, with the journal's last words."""
    done = subprocess.run(("systemctl", *words), capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        name = module.params["name"]
        journal = subprocess.run(("journalctl", "-u", name, "-n", "5", "-o", "cat", "--no-pager"), capture_output=True, text=True, check=False)
        module.fail_json(msg=f"systemctl {' '.join(words)}: {(done.stderr or done.stdout).strip()}. Its last words: {journal.stdout.strip()[-1000:]}")
    return done.stdout


def facts(module: AnsibleModule, name: str) -> dict[str, str]:
    """What systemd knows of a unit."""
    wanted = "LoadState,ActiveState,UnitFileState,NeedDaemonReload,ExecMainStartTimestampMonotonic,MainPID"
    lines = systemctl(module, "show", f"--property={wanted}", name).splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


def wall(started: str) -> float:
    """A time of the monotonic clock, in microseconds, as Unix seconds of this host's clock now."""
    return time.time() - (time.clock_gettime(time.CLOCK_MONOTONIC) - int(started or 0) / 1e6)


def younger(files: list[Path], started: str) -> list[str]:
    """The files that have changed since a process began; `started` in microseconds of the monotonic clock."""
    since = wall(started)
    return [str(file) for file in files if file.exists() and file.stat().st_ctime > since]


def youngest(pid: str) -> str:
    """When the youngest of a process and its children began, in microseconds of the monotonic clock; "0" where it is gone."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()
    except OSError:
        children = []
    return str(max((begun(process) for process in (pid, *children)), default=0))


def begun(pid: str) -> int:
    """When a process began, in microseconds since boot without the time asleep; 0 where it is gone."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return 0
    asleep = time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)
    return int((int(words[19]) / os.sysconf("SC_CLK_TCK") - asleep) * 1e6)


def needed(name: str, known: dict[str, str], files: list[Path]) -> tuple[list[str], list[str]]:
    """What systemctl has to do, in order, and the files because of which a restart is due."""
    running = known["ActiveState"] in ("active", "activating", "reloading")
    reread = known["NeedDaemonReload"] == "yes" or known["LoadState"] == "not-found"
    reason = younger(files, known["ExecMainStartTimestampMonotonic"]) if running and name.endswith(".service") else []
    restart = reason or not running or (reread and name.endswith(".timer"))
    wanted = {"daemon-reload": reread, "enable": known["UnitFileState"] != "enabled", "restart": restart}
    return [action for action, due in wanted.items() if due], reason


def act(module: AnsibleModule, name: str, actions: list[str]) -> None:
    """Carry it out, and see that the program stays alive. One whose first start fails is tried again by systemd, as its unit says."""
    for action in actions:
        if action == "restart":
            subprocess.run(("systemctl", "restart", name), capture_output=True, check=False, stdin=subprocess.DEVNULL)
        else:
            systemctl(module, action, *([] if action == "daemon-reload" else [name]))
    if "restart" not in actions:
        return
    time.sleep(SETTLE)
    end = time.monotonic() + PATIENCE
    while facts(module, name)["ActiveState"] != "active":
        if time.monotonic() > end:
            systemctl(module, "is-active", name)
        time.sleep(1)


def main() -> None:
    """Compare, act."""
    spec = {
        "name": {"type": "str", "required": True},
        "files": {"type": "list", "elements": "path", "default": []},
        "reload_for": {"type": "list", "elements": "path", "default": []},
    }
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True)
    name = module.params["name"]
    known = facts(module, name)
    unit = Path("/etc/systemd/system", name)
    if known["LoadState"] == "not-found" and not unit.exists():
        if module.check_mode:
            module.exit_json(changed=True, actions=["restart"], reason=[])
        module.fail_json(msg=f"There is no unit {name}.")
    actions, reason = needed(name, known, [unit, *map(Path, module.params["files"])])
    lighter = [Path(file) for file in module.params["reload_for"]]
    if lighter and "restart" not in actions and (fresh := younger(lighter, youngest(known["MainPID"]))):
        actions, reason = [*actions, "reload"], fresh
    if not module.check_mode:
        act(module, name, actions)
    module.exit_json(changed=bool(actions), actions=actions, reason=reason, started=wall(known.get("ExecMainStartTimestampMonotonic", "")))


if __name__ == "__main__":
    main()
