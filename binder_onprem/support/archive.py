"""The archive of a bug report: what hosts have told, who did not answer, a manifest of it. For its owner alone to read."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
import tarfile
import time
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from binder_onprem.support.redaction import net, redacted, without, words_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

UNPACKED: Final = 128 * 1024**2
"""Bytes of one host's report."""
SECRET: Final = 256 * 1024
_NAME: Final = re.compile(r"[A-Za-z0-9_@+:\\-][A-Za-z0-9_.@+:\\-]{0,200}")
"""A part of a file's name: what hosts say decides no path outside."""
_README: Final = """\
What a bug report of binder-onprem needs to know of these hosts; see MANIFEST.json for what is missing and why.

Taken out: contents of files with secrets, wherever they occur, and what looks like a secret.
{people}
Still in it: names and addresses of hosts and clients, links that were launched and so the names of repositories, names of images and files.
Look through it before you give it to somebody.
"""
_PEOPLE: Final = {
    True: "People are pseudonyms: the same person is the same in all of this archive, and another one in the next.",
    False: "People's names are in it, as support_people, or --people, asked for.",
}


@dataclass(frozen=True, slots=True)
class Host:
    """What is known of one.

    Attributes:
        report: As `look.report` makes it; None where there is none.
        why: Why not.
        status: What `deploy status` finds.
    """

    report: Mapping[str, Any] | None = None
    why: str = ""
    status: tuple[Mapping[str, str], ...] = field(default=())


def unpacked(line: str) -> dict[str, Any] | None:
    """A report out of what `look.packed` made of it; None for what is none, or too large to be one."""
    try:
        inflate = zlib.decompressobj()
        data = inflate.decompress(base64.b64decode(line.strip(), validate=True), UNPACKED)
        found = json.loads(data) if inflate.eof else None
    except (ValueError, zlib.error):
        return None
    if not isinstance(found, dict) or not isinstance(found.get("files"), dict):
        return None
    return found


def known_in(secrets: Path) -> tuple[str, ...]:
    """The net for everything in a site's directory of secrets."""
    texts = [path.read_text(errors="replace") for path in sorted(secrets.rglob("*")) if path.is_file() and path.stat().st_size < SECRET]
    # Certificates are no secrets; keys in the same file are taken out by their frame.
    return net(word for text in texts if "-----BEGIN CERTIFICATE" not in text for word in words_of(text))


def write(directory: Path, hosts: Mapping[str, Host], about: Mapping[str, Any], known: tuple[str, ...], now: float) -> Path:
    """Write an archive.

    Args:
        directory: Where; made for its owner alone if it is missing.
        hosts: By name.
        about: What the manifest tells beyond that.
        known: Secrets that none of the hosts need have: a net for all of it.
        now: Unix seconds.

    Raises:
        OSError: It cannot be written there.
    """
    files = {f"{name}/{inner}": text for name, host in sorted(hosts.items()) for inner, text in _files(host, known).items()}
    made = time.gmtime(now)
    manifest = {
        "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", made),
        **about,
        "hosts": {name: _told(host, known) for name, host in sorted(hosts.items())},
        "files": {name: {"bytes": len(text.encode()), "sha256": hashlib.sha256(text.encode()).hexdigest()} for name, text in files.items()},
    }
    root = time.strftime("binder-support-%Y%m%d-%H%M%S", made)
    files["MANIFEST.json"] = json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
    files["README.txt"] = _README.format(people=_PEOPLE[not about.get("people")])
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = directory / f".{root}.new"
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        with tarfile.open(fileobj=file, mode="w:gz", compresslevel=6) as tar:
            for name, text in files.items():
                _add(tar, f"{root}/{name}", text, now)
        file.flush()
        os.fsync(file.fileno())
    return new.replace(directory / f"{root}.tar.gz")


def _add(tar: tarfile.TarFile, name: str, text: str, now: float) -> None:
    data = text.encode()
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode, entry.mtime = len(data), 0o600, int(now)
    tar.addfile(entry, io.BytesIO(data))


def _files(host: Host, known: tuple[str, ...]) -> dict[str, str]:
    found = {_safe(str(name)): without(str(text), known) for name, text in (host.report or {}).get("files", {}).items()}
    if host.status:
        found["status.json"] = redacted(json.dumps(list(host.status), indent=2, ensure_ascii=False), known) + "\n"
    return found


def _safe(name: str) -> str:
    """A name of a file below the host's directory, whatever the host says."""
    parts = [part if _NAME.fullmatch(part) else re.sub(r"[^A-Za-z0-9_@+:-]", "_", part)[:200] for part in name.split("/")[:16]]
    return "/".join(part for part in parts if part) or "_"


def _told(host: Host, known: tuple[str, ...]) -> dict[str, Any]:
    """A host in the manifest."""
    if host.report is None:
        return {"answered": False, "why": redacted(host.why, known)}
    notes = [without(str(note), known) for note in host.report.get("notes", ())]
    return {"answered": True, "seconds": host.report.get("seconds"), "notes": notes}
