#!/usr/bin/python
"""Files of a checkout as one archive on the controller, whose bytes follow from the files' contents and names alone."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule


def files(root: Path, names: list[str]) -> list[Path]:
    """The files below these names, without what Python and editors leave."""
    found = [path for name in names for path in ([root / name] if (root / name).is_file() else (root / name).rglob("*"))]
    return sorted(path for path in found if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc")


def archive(root: Path, names: list[str]) -> bytes:
    """The archive."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path in files(root, names):
            entry = tarfile.TarInfo(str(path.relative_to(root)))
            data = path.read_bytes()
            entry.size, entry.mode = len(data), 0o755 if path.stat().st_mode & 0o100 else 0o644
            tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def main() -> None:
    """Write it if it is another one."""
    spec = {
        "root": {"type": "path", "required": True},
        "names": {"type": "list", "elements": "str", "required": True},
        "dest": {"type": "path", "required": True},
    }
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True)
    root, dest = Path(module.params["root"]), Path(module.params["dest"])
    missing = [name for name in module.params["names"] if not (root / name).exists()]
    if missing:
        module.fail_json(msg=f"{root} is no checkout of binder-onprem: {', '.join(missing)} is missing. Name one in binder_source.")
    data = archive(root, module.params["names"])
    changed = not dest.exists() or dest.read_bytes() != data
    # In check mode too: it is a file of the controller's own, which the next task compares with the host's.
    if changed:
        dest.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = dest.with_name(dest.name + ".new")
        new.write_bytes(data)
        new.replace(dest)
    module.exit_json(changed=False, checksum=hashlib.sha256(data).hexdigest())


if __name__ == "__main__":
    main()
