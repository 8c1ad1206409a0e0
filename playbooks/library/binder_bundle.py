#!/usr/bin/python
"""A bundle: everything that `site` needs with the network cut, in few files, with their checksums and a bill of materials.

The bytes follow from the contents alone. `SHA256SUMS` is removed first and written last, so a bundle that was interrupted is none.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tarfile
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

SUMS = "SHA256SUMS"
BILL = "bom.cdx.json"
BLOCK = 1024**2
LINE = re.compile(r"([0-9a-f]{64})  ([A-Za-z0-9_.+][A-Za-z0-9_.+/-]*)")
KINDS = {
    "deb": re.compile(r"(?P<name>[^_]+)_(?P<version>[^_]+)_(?P<arch>[^_]+)\.deb"),
    "pypi": re.compile(r"(?P<name>[^-]+)-(?P<version>[^-]+)(-[^-]+)+\.whl"),
    "npm": re.compile(r"(?P<name>.+)-(?P<version>\d+\.\d+\.\d+.*)\.tgz"),
}
"""File names of packages, each kind's as its own tools write them."""


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            found.update(block)
    return found.hexdigest()


def sums(folder: Path) -> dict[str, str]:
    """Names and digests of a bundle's files; {} where it is none."""
    try:
        lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return {}
    found = [LINE.fullmatch(line) for line in lines]
    return {match[2]: match[1] for match in found if match and ".." not in match[2].split("/")} if all(found) else {}


def damaged(folder: Path, known: dict[str, str]) -> list[str]:
    """Files that are missing or have other contents."""
    return [name for name, was in sorted(known.items()) if not (folder / name).is_file() or digest(folder / name) != was]


def files(root: Path) -> list[Path]:
    """A directory's files in order; `partial` is what apt has half fetched."""
    return sorted(path for path in root.rglob("*") if path.is_file() and "partial" not in path.parts)


def packed(root: Path, target: Path) -> None:
    """An archive of a directory's files, the same bytes for the same contents."""
    with tarfile.open(target, "w") as tar:
        for path in files(root):
            entry = tarfile.TarInfo(str(path.relative_to(root)))
            entry.size, entry.mode = path.stat().st_size, 0o644
            with path.open("rb") as file:
                tar.addfile(entry, file)


def members(part: dict[str, Any]) -> dict[str, str]:
    """Names and digests of what goes into one of the bundle's files."""
    root = Path(part["src"])
    if root.is_file():
        return {root.name: digest(root)}
    return {str(path.relative_to(root)): digest(path) for path in files(root)}


def components(name: str, inside: dict[str, str]) -> list[dict[str, Any]]:
    """What a part holds, for the bill: packages by their file names, everything else as files."""
    found = []
    for path, sha in inside.items():
        base = Path(path).name
        kind, match = next(((kind, match) for kind, pattern in KINDS.items() if (match := pattern.fullmatch(base))), ("", None))
        about: dict[str, Any] = {"type": "file", "name": path}
        if match:
            version = match["version"].replace("%3a", ":")
            # npm's have their scope as a directory.
            scope = next((f"{folder}/" for folder in Path(path).parts[:-1] if kind == "npm" and folder.startswith("@")), "")
            about = {"type": "library", "name": scope + match["name"], "version": version, "purl": purl(kind, name, scope + match["name"], version)}
        found.append({**about, "hashes": [{"alg": "SHA-256", "content": sha}], "properties": [{"name": "binder-onprem:part", "value": name}]})
    return found


def purl(kind: str, part: str, name: str, version: str) -> str:
    """A package's URL; of a distribution's the part's name has the release."""
    where = "deb/debian" if kind == "deb" else kind
    name = re.sub(r"[-_.]+", "-", name).lower() if kind == "pypi" else name.replace("@", "%40")
    return f"pkg:{where}/{name}@{version}" + (f"?distro={part.removeprefix('deb-').removesuffix('.tar')}" if kind == "deb" else "")


def bill(parts: dict[str, dict[str, str]]) -> str:
    """The bill of materials, CycloneDX 1.5."""
    listed = [about for name, inside in sorted(parts.items()) for about in components(name, inside)]
    return json.dumps({"bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1, "components": listed}, indent=1) + "\n"


def sealed(module: AnsibleModule, dest: Path, parts: list[dict[str, Any]]) -> None:
    """Write what is another one than it was; the rest stays as it is."""
    inside = {part["name"]: members(part) for part in parts}
    empty = sorted(name for name, found in inside.items() if not found)
    if empty:
        module.fail_json(msg=f"There is nothing for {', '.join(empty)}: {[part['src'] for part in parts if part['name'] in empty]}")
    text = bill(inside)
    old = sums(dest)
    # The bill names every file with its digest: where it is the same, and what was made of it is whole, there is nothing to do.
    same = {*inside, BILL} == set(old) and (dest / BILL).is_file() and (dest / BILL).read_text(encoding="utf-8") == text and not damaged(dest, old)
    if same or module.check_mode:
        module.exit_json(changed=not same, files=sorted(old))
    dest.mkdir(parents=True, exist_ok=True)
    (dest / SUMS).unlink(missing_ok=True)
    for part in parts:
        target = dest / part["name"]
        target.parent.mkdir(parents=True, exist_ok=True)
        new = target.with_name(target.name + ".new")
        source = Path(part["src"])
        if source.is_file():
            shutil.copyfile(source, new)
            new.chmod(0o755 if source.stat().st_mode & 0o100 else 0o644)
        else:
            packed(source, new)
        new.replace(target)
    (dest / BILL).write_text(text, encoding="utf-8")
    known = {name: digest(dest / name) for name in sorted({*inside, BILL})}
    for path in dest.rglob("*"):
        if path.is_file() and str(path.relative_to(dest)) not in known:
            path.unlink()
    new = dest / f"{SUMS}.new"
    new.write_text("".join(f"{sha}  {name}\n" for name, sha in known.items()), encoding="utf-8")
    new.replace(dest / SUMS)
    module.exit_json(changed=True, files=sorted(known))


def verified(module: AnsibleModule, dest: Path) -> None:
    """Look whether a bundle is whole."""
    known = sums(dest)
    if not known:
        module.fail_json(msg=f"{dest} is no whole bundle: its {SUMS} is missing or damaged. Copy it again, or run deploy bundle.")
    if bad := damaged(dest, known):
        module.fail_json(msg=f"The bundle in {dest} is damaged: {', '.join(bad)}. Nothing was touched. Copy these files again.", damaged=bad)
    module.exit_json(changed=False, sums=known)


def main() -> None:
    """Make one, or look at it."""
    spec = {
        "dest": {"type": "path", "required": True},
        "parts": {"type": "list", "elements": "dict", "default": []},
        "state": {"type": "str", "choices": ["sealed", "verified"], "default": "sealed"},
    }
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True)
    dest = Path(module.params["dest"])
    if module.params["state"] == "verified":
        verified(module, dest)
    sealed(module, dest, module.params["parts"])


if __name__ == "__main__":
    main()
