#!/usr/bin/python
"""npm's packages of a lock file as the tarballs that they are, by this machine's npm, which compares them with the lock's digests."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"


def wanted(lock: dict[str, Any]) -> dict[str, str]:
    """Tarballs that running the thing needs: path below the directory → integrity."""
    found = {}
    for path, about in lock["packages"].items():
        if path and not about.get("dev"):
            found[f"{path.rpartition('node_modules/')[2]}-{about['version']}.tgz"] = about["integrity"]
    return found


def kept(cache: Path, integrity: str) -> Path:
    """Where npm's cache has what it took under a digest."""
    algorithm, _, digest = integrity.partition("-")
    name = base64.b64decode(digest).hex()
    return cache / "_cacache" / "content-v2" / algorithm / name[:2] / name[2:4] / name[4:]


def main() -> None:
    """Fetch all if the lock is another one than before."""
    spec = {"root": {"type": "path", "required": True}, "cache": {"type": "path", "required": True}}
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True)
    root, folder = Path(module.params["root"]), Path(module.params["cache"])
    text = (root / "package-lock.json").read_text(encoding="utf-8")
    # Written last: what was interrupted begins anew.
    known = folder / "package-lock.json"
    changed = not known.exists() or known.read_text(encoding="utf-8") != text
    if changed and not module.check_mode:
        work, tarballs, cache = folder / "work", folder / "tarballs", folder / "npm"
        for path in (work, tarballs):
            shutil.rmtree(path, ignore_errors=True)
            path.mkdir(parents=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(root / name, work)
        command = ("npm", "ci", "--omit=dev", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier", f"--cache={cache}")
        env = {"NODE_EXTRA_CA_CERTS": CERTIFICATES, **os.environ}
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, env=env, cwd=work)
        except FileNotFoundError:
            module.fail_json(msg="This machine has no npm. Install the package npm, then run it again.")
        if done.returncode:
            module.fail_json(msg=f"npm failed: {done.stderr.strip()[-2000:]} Check what it is configured for (npm config list), then run it again.")
        for name, integrity in wanted(json.loads(text)).items():
            (tarballs / name).parent.mkdir(exist_ok=True)
            shutil.copy(kept(cache, integrity), tarballs / name)
        for path in (work, cache):
            shutil.rmtree(path)
        known.write_text(text, encoding="utf-8")
    module.exit_json(changed=changed)


if __name__ == "__main__":
    main()
