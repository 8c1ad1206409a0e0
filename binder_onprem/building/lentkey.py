"""The site's ssh key, or a credential, lent to one clone: copies that the sandbox can read, below a name that nobody can guess, gone afterwards.

Used by `prepare`. The container's user is nobody on this machine, so the administrator's file itself would not be readable inside; the copies lie
in a directory that only root enters. A repository may hold links to any path: what they could name must not be where the key is.
"""

from __future__ import annotations

import json
import secrets
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

from binder_onprem.config import GitProvider
from binder_onprem.engine.containers import Mount
from binder_onprem.errors import EngineUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from binder_onprem.config import Config
    from binder_onprem.credential import Credential
    from binder_onprem.model import ResolvedRepo


def place(directory: Path) -> Path:
    """Where the copies for a build's directory lie while it is prepared."""
    return directory.parent / f"{directory.name}.ssh"


@contextmanager
def lent_credential(credential: Credential | None, directory: Path) -> Iterator[Mount | None]:
    """Lend a credential while the context lasts: a directory with the file ``credential``, which the sandbox removes as soon as it has read it.

    Raises:
        EngineUnavailable: It cannot be written.
    """
    if credential is None:
        yield None
        return
    outer = place(directory)
    shutil.rmtree(outer, ignore_errors=True)
    told = {"origin": credential.origin, "username": credential.username, "password": credential.secret, "submodules": credential.everybody}
    try:
        yield _for_removal(json.dumps(told), outer)
    finally:
        shutil.rmtree(outer, ignore_errors=True)


def _for_removal(text: str, outer: Path) -> Mount:
    inner = outer / "files"
    try:
        outer.mkdir(mode=0o700, parents=True)
        inner.mkdir()
        (inner / "credential").write_text(text, encoding="utf-8")
        (inner / "credential").chmod(0o444)
        inner.chmod(0o777)  # the container's user, nobody here, removes the file; nobody else gets through `outer`
    except OSError as error:
        raise EngineUnavailable("The credential of the repository cannot be lent to the clone. The administrator must look into it.") from error
    return Mount(str(inner), f"/{secrets.token_hex(16)}", writable=True)


@contextmanager
def lent(config: Config, repo: ResolvedRepo, directory: Path) -> Iterator[Mount | None]:
    """Lend the key while the context lasts: a directory with ``key`` and ``known_hosts``, to be mounted read-only.

    None for what is not cloned over ssh, or by a provider without a key.

    Raises:
        EngineUnavailable: The files are not there any more.
    """
    part = next((part for part in config.providers if part.prefix == repo.spec.provider), None)
    if not isinstance(part, GitProvider) or part.ssh_key_file is None or part.known_hosts_file is None or not repo.url.startswith("ssh://"):
        yield None
        return
    outer = place(directory)
    shutil.rmtree(outer, ignore_errors=True)
    try:
        yield _copied(part.ssh_key_file, part.known_hosts_file, outer)
    finally:
        shutil.rmtree(outer, ignore_errors=True)


def _copied(key: Path, known_hosts: Path, outer: Path) -> Mount:
    inner = outer / "files"
    try:
        outer.mkdir(mode=0o700, parents=True)
        inner.mkdir()
        for file, name in ((key, "key"), (known_hosts, "known_hosts")):
            shutil.copyfile(file, inner / name)
            (inner / name).chmod(0o444)
        inner.chmod(0o755)
    except OSError as error:
        raise EngineUnavailable("The site's ssh key cannot be read. The administrator must look into it.") from error
    return Mount(str(inner), f"/{secrets.token_hex(16)}")
