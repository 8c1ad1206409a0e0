#!/usr/bin/python
"""Random secrets on the controller, one a file that nobody else may read; those that are there stay. Nothing is written in check mode.

What a task under ``no_log`` says of its failure is hidden, too: with ``told: false`` those that are there are looked at, none is made, none told.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule


def make(path: Path) -> str:
    """A new secret of 256 bits; the file is there as a whole or not at all."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    text = secrets.token_hex(32)
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    return text


def main() -> None:
    """Answer with the secrets by name."""
    spec = {
        "directory": {"type": "path", "required": True},
        "names": {"type": "list", "elements": "str", "required": True},
        "told": {"type": "bool", "default": True},
    }
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True)
    directory = Path(module.params["directory"])
    found: dict[str, str] = {}
    changed = False
    for name in module.params["names"]:
        path = directory / name
        if path.exists():
            if path.stat().st_mode & 0o077:
                module.fail_json(msg=f"{path} can be read by other accounts. Set its rights (chmod 600 {path}), and change the secret.")
            found[name] = path.read_text(encoding="utf-8").strip()
        elif module.params["told"]:
            changed = True
            found[name] = "0" * 64 if module.check_mode else make(path)
    module.exit_json(changed=changed, secrets=found if module.params["told"] else {})


if __name__ == "__main__":
    main()
