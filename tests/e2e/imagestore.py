"""Podman's storage with both images in it, made once for a recipe; stands begin with hard links to it instead of loading the archives again.

That takes a second instead of half a minute of a processor. Layers are never written in place: what changes a file of one copies it up, and
what removes an image removes links. Podman's own records are copies. `up` looks at these images as at any that stand: those of another recipe
it makes anew. The way through the archives is taken by `tests.real.engine`, and by the first stand on a machine.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from binder_onprem.config import Config, ImageBase, load
from binder_onprem.host import imagecache, sources
from binder_onprem.host.recipe import Recipe, recipe
from binder_onprem.model import fingerprint

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RECORDS: Final = ("overlay-images", "overlay-layers")
KEPT: Final = 2
"""Storages that stay; the ones used last. Each has the size of both images."""
_learned: dict[tuple[object, ...], str] = {}
"""What package clients and, over the network, their indexes have answered to this process."""


def give(home: Path) -> None:
    """Fill a home that `up` has not seen yet; where that is not possible, `up` finds nothing and loads or makes the images."""
    config = load(home=home)
    if (home / "storage").exists() or isinstance(config.build.base, ImageBase):
        return
    asked = recipe(config, _sources(config))
    folder = imagecache.directory().parent / "stands"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_dev != home.stat().st_dev:
        return
    with _locked(folder):
        store = _store(folder, asked)
        if store and not _linked(store, home / "storage"):
            shutil.rmtree(home / "storage")


def _sources(config: Config) -> sources.Sources:
    """`up` asks the clients again, but not the network for what is known."""
    key, file = (config.mirrors, sources.suite(config)), config.home / "etc" / "sources.json"
    if key in _learned:
        file.parent.mkdir(exist_ok=True)
        file.touch(mode=0o600)
        file.write_text(_learned[key], encoding="utf-8")
        return sources.read(config)
    found = sources.learn(config)
    _learned[key] = file.read_text(encoding="utf-8")
    return found


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for half in folder.glob(".half-*"):  # of a killed process
            shutil.rmtree(half)
        yield


def _store(folder: Path, asked: Recipe) -> Path | None:
    store = folder / fingerprint(asked.session, asked.sandbox)
    if not store.exists():
        kinds = {"session": asked.session, "sandbox": asked.sandbox}
        archives = [imagecache.find(imagecache.directory(), kind, key) for kind, key in kinds.items()]
        if None in archives:
            return None
        half = folder / f".half-{os.getpid()}"
        for archive in archives:
            _load(half, f"--input={archive}")
        os.sync()  # a file appears under its name when it is whole
        (half / "storage").rename(store)
        shutil.rmtree(half)
    os.utime(store)
    for old in sorted(folder.glob("[0-9a-f]*"), key=lambda item: item.stat().st_mtime, reverse=True)[KEPT:]:
        shutil.rmtree(old)
    return store


def _load(place: Path, archive: str) -> None:
    places = (f"--root={place}/storage", f"--runroot={place}/run", f"--tmpdir={place}/libpod", "--storage-driver=overlay")
    subprocess.run(["podman", *places, "load", "--quiet", archive], capture_output=True, check=True, timeout=300)
    subprocess.run(["umount", "--quiet", f"{place}/storage/overlay"], capture_output=True, check=False)  # some leave it mounted


def _linked(store: Path, storage: Path) -> bool:
    """Whether the file system does it and has room; nothing of podman's has looked at `storage` yet, which it would mount on itself."""
    storage.mkdir(mode=0o711)
    copied = subprocess.run(["cp", "--archive", *(store / name for name in RECORDS), storage], check=False).returncode == 0
    linked = copied and subprocess.run(["cp", "--archive", "--link", store / "overlay", storage], capture_output=True, check=False).returncode == 0
    for file in (*storage.glob("overlay/*"), *storage.glob("overlay/*/*")):
        if file.is_file() and not file.is_symlink():
            _own(file)
    return linked


def _own(file: Path) -> None:
    """A copy in place of the link: what podman has written about a layer, not what is in it."""
    copy = file.with_name(f"{file.name}.own")
    shutil.copy2(file, copy)
    copy.replace(file)
