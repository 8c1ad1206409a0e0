#!/usr/bin/python
"""The archive of a bug report on the controller, out of what the hosts have told; and what there is to say of each host."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

SILENT = "It did not answer: its part is missing. Can you log in there by ssh? Is the host up, and its Python?"
BROKEN = "It answers, and its part is missing. See the full log, and MANIFEST.json in the archive."


def commit(source: str) -> str:
    """Of the checkout; "" where it is none."""
    try:
        words = ["git", "-C", source, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=20, check=False, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def row(path: Path, host: dict[str, Any], report: dict[str, Any] | None) -> dict[str, str]:
    """A line of the screen."""
    if report is None:
        return {"level": "warn", "subject": "support", "text": f"not in {path}: {host['why']}", "fix": SILENT if host["unreachable"] else BROKEN}
    size = sum(len(str(text)) for text in report["files"].values())
    missing = f", {len(report['notes'])} notes" if report.get("notes") else ""
    return {"level": "ok", "subject": "support", "text": f"{path}: {len(report['files'])} files, {size // 1024} KiB{missing}", "fix": ""}


def main() -> None:
    """Write it, tell where it is."""
    spec = {
        "source": {"type": "path", "required": True},
        "directory": {"type": "path", "required": True},
        "secrets": {"type": "path", "required": True},
        # Long, and not to be read in a log.
        "hosts": {"type": "json", "required": True, "no_log": True},
        "about": {"type": "dict", "default": {}},
    }
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True)
    asked = module.params
    sys.path.insert(0, asked["source"])
    from binder_onprem.support import archive  # noqa: PLC0415 - where it is has just been told

    if module.check_mode:
        module.exit_json(changed=True, rows={}, path="")
    hosts: dict[str, dict[str, Any]] = json.loads(asked["hosts"])
    reports = {name: archive.unpacked(host["report"]) for name, host in hosts.items()}
    parts = {name: archive.Host(reports[name], host["why"], tuple(host["status"])) for name, host in hosts.items()}
    about = {**asked["about"], "commit": commit(asked["source"])}
    try:
        path = archive.write(Path(asked["directory"]), parts, about, archive.known_in(Path(asked["secrets"])), time.time())
    except OSError as error:
        module.fail_json(
            msg=f"The archive cannot be written to {asked['directory']}: {error}. Make room, or name another directory: support_directory."
        )
    module.exit_json(changed=True, path=str(path), rows={name: [row(path, host, reports[name])] for name, host in hosts.items()})


if __name__ == "__main__":
    main()
