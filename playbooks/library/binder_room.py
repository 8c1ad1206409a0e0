#!/usr/bin/python
"""Whether there is room to write at the places that are about to be written to: a disk that is full is named with its host. Writes nothing.

Standard library only, because it runs on hosts that have nothing yet.
"""

from __future__ import annotations

import os
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

MIB = 1024**2
FILES = 200
"""Files that can be made at the least."""


def mount(path: Path) -> Path:
    """Where the file system of a path begins; of its nearest directory that is there."""
    while not path.exists():
        path = path.parent
    while not path.is_mount():
        path = path.parent
    return path


def objections(host: str, paths: list[str], least: int) -> list[str]:
    """A sentence for each file system without room; `least` in bytes."""
    found: list[str] = []
    for place in sorted({mount(Path(path)) for path in paths}):
        room = os.statvfs(place)
        free = room.f_bavail * room.f_frsize
        below = ", ".join(path for path in paths if mount(Path(path)) == place)
        what = f"du -xh {place} | sort -h | tail -n 20"
        if free < least:
            found.append(
                f"{host}: the disk of {below} (mounted at {place}) is full: {free // MIB} MiB are free, {least // MIB} MiB are needed to go on. "
                f"See what takes the room ({what}), make some, or mount a larger disk there."
            )
        elif room.f_files and room.f_favail < FILES:
            found.append(
                f"{host}: the file system of {below} (mounted at {place}) can make no more files: all its inodes are used. Remove small files."
            )
    return found


def main() -> None:
    """Look, say."""
    spec = {
        "host": {"type": "str", "required": True},
        "paths": {"type": "list", "elements": "str", "required": True},
        "least": {"type": "int", "required": True},
    }
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True)
    if found := objections(module.params["host"], module.params["paths"], module.params["least"] * MIB):
        module.fail_json(msg=" ".join([*found, "Nothing was changed on this host."]))
    module.exit_json(changed=False)


if __name__ == "__main__":
    main()
