from __future__ import annotations

import hashlib
import io
import os
import stat
import tarfile
from typing import TYPE_CHECKING

import pytest
import zstandard

from binder_onprem.building.layers import Ids, Layer, changes, content, context, piped
from binder_onprem.building.overlay import DEPTH, walk, written
from binder_onprem.errors import LimitHit

if TYPE_CHECKING:
    from pathlib import Path

IDS = Ids(((0, 2_000_000, 65536),), ((0, 2_000_000, 65536),))
root = pytest.mark.skipif(os.getuid() != 0, reason="makes devices and sets owners")


async def packed(layer: Layer) -> tuple[bytes, dict[str, tarfile.TarInfo]]:
    data = b"".join([chunk async for chunk in layer.stream()])
    plain = zstandard.ZstdDecompressor().decompressobj().decompress(data)
    assert layer.blob.digest == f"sha256:{hashlib.sha256(data).hexdigest()}"
    assert layer.blob.size == len(data)
    assert layer.blob.diff_id == f"sha256:{hashlib.sha256(plain).hexdigest()}"
    with tarfile.open(fileobj=io.BytesIO(plain)) as tar:
        return data, {member.name: member for member in tar}


@root
async def test_owners_are_mapped_back_and_what_lies_outside_the_namespace_is_nobodys(tmp_path: Path) -> None:
    for name, owner in (("root", 2_000_000), ("jovyan", 2_001_000), ("host", 0)):
        (tmp_path / name).write_text(name)
        os.chown(tmp_path / name, owner, owner)
    _, members = await packed(changes(tmp_path, IDS, setuid=False, limit=10**6))
    assert {name: (member.uid, member.gid) for name, member in members.items()} == {
        "root": (0, 0),
        "jovyan": (1000, 1000),
        "host": (65534, 65534),
    }


@root
async def test_removed_and_hidden_files_are_said_as_whiteouts(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    os.mknod(tmp_path / "d" / "gone", stat.S_IFCHR, os.makedev(0, 0))
    (tmp_path / "o").mkdir()
    os.setxattr(tmp_path / "o", "trusted.overlay.opaque", b"y")
    _, members = await packed(changes(tmp_path, IDS, setuid=False, limit=10**6))
    assert list(members) == ["d", "d/.wh.gone", "o", "o/.wh..wh..opq"]


@root
async def test_devices_sockets_and_planted_whiteouts_stay_behind(tmp_path: Path) -> None:
    os.mknod(tmp_path / "disk", stat.S_IFBLK | 0o666, os.makedev(254, 0))
    os.mknod(tmp_path / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / ".wh.passwd").write_text("")
    (tmp_path / ".wh..wh..opq").write_text("")
    (tmp_path / "kept").write_text("")
    _, members = await packed(changes(tmp_path, IDS, setuid=True, limit=10**6))
    assert list(members) == ["kept"]


async def test_what_the_engine_put_there_is_left_out(tmp_path: Path) -> None:
    for name in ("etc/resolv.conf", "etc/hosts", "etc/kept", "binder-gate/x", "tmp/x", "run/x", "dev/console", "var/tmp/x", "binderkept"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    _, members = await packed(changes(tmp_path, Ids(), setuid=False, limit=10**6))
    assert list(members) == ["binderkept", "etc", "etc/kept", "var"]


async def test_links_are_kept_as_links_and_never_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("secret")
    upper = tmp_path / "upper"
    upper.mkdir()
    (upper / "link").symlink_to(outside)
    (upper / "dirlink").symlink_to("/etc")
    (upper / "a").write_text("data")
    os.link(upper / "a", upper / "b")
    data, members = await packed(changes(upper, Ids(), setuid=False, limit=10**6))
    assert (members["link"].type, members["dirlink"].linkname) == (tarfile.SYMTYPE, "/etc")
    assert (members["b"].type, members["b"].linkname, members["a"].size) == (tarfile.LNKTYPE, "a", 4)
    assert b"secret" not in zstandard.ZstdDecompressor().decompressobj().decompress(data)


@pytest.mark.parametrize(("setuid", "mode"), [(True, 0o6755), (False, 0o755)])
async def test_special_bits_only_where_they_are_wanted(tmp_path: Path, setuid: bool, mode: int) -> None:  # noqa: FBT001
    (tmp_path / "su").write_text("")
    (tmp_path / "su").chmod(0o6755)
    _, members = await packed(changes(tmp_path, Ids(), setuid=setuid, limit=10**6))
    assert members["su"].mode == mode


async def test_a_repository_becomes_the_users_own_files(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir(mode=0o700)
    (tmp_path / "sub" / "run.sh").write_text("x")
    (tmp_path / "sub" / "run.sh").chmod(0o4711)
    (tmp_path / "notebook.ipynb").write_text("{}")
    (tmp_path / "notebook.ipynb").chmod(0o600)
    _, members = await packed(content(tmp_path, 10**6))
    assert {name: (oct(member.mode), member.uid) for name, member in members.items()} == {
        "home": ("0o755", 0),
        "home/jovyan": ("0o755", 1000),
        "home/jovyan/notebook.ipynb": ("0o644", 1000),
        "home/jovyan/sub": ("0o755", 1000),
        "home/jovyan/sub/run.sh": ("0o755", 1000),
    }


async def test_the_same_files_make_the_same_layer_whenever_it_is_made(tmp_path: Path) -> None:
    for name in ("b", "a", "c"):
        (tmp_path / name).write_text(name)
        os.utime(tmp_path / name, (1, 1_000_000_000.5))
    layer = content(tmp_path, 10**6)
    first, members = await packed(layer)
    assert (await packed(layer))[0] == first
    assert members["home/jovyan/a"].mtime == 1_000_000_000


async def test_names_of_any_bytes_and_length(tmp_path: Path) -> None:
    long = "/".join(["d" * 100] * 4)
    (tmp_path / long).mkdir(parents=True)
    (tmp_path / os.fsdecode(b"n\xff\n")).write_text("x")
    _, members = await packed(content(tmp_path, 10**6))
    assert f"home/jovyan/{long}" in members
    assert os.fsdecode(b"home/jovyan/n\xff\n") in members


async def test_a_layer_over_the_limit_is_the_builds_fault(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(10**12)
    with pytest.raises(LimitHit, match="wrote more than"):
        await packed(content(tmp_path, 10**6))


async def test_leaving_early_ends_the_thread(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(os.urandom(20 * 1024**2))
    stream = content(tmp_path, 10**9).stream()
    assert await anext(stream)
    await stream.aclose()


def test_too_deep_a_tree_is_refused(tmp_path: Path) -> None:
    directory = os.open(tmp_path, os.O_RDONLY)
    for _ in range(DEPTH + 2):
        os.mkdir("d", dir_fd=directory)
        below = os.open("d", os.O_RDONLY, dir_fd=directory)
        os.close(directory)
        directory = below
    os.close(directory)
    with pytest.raises(LimitHit, match="nested"):
        list(walk(tmp_path))


def test_hard_links_are_counted_once(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(os.urandom(1024**2))
    before = written(tmp_path)
    os.link(tmp_path / "a", tmp_path / "b")
    assert written(tmp_path) == before >= 1024**2


async def test_a_context_holds_links_as_links(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM x")
    (tmp_path / "passwd").symlink_to("/etc/passwd")
    data = b"".join([chunk async for chunk in piped(context(tmp_path))])
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert [(member.name, member.type, member.linkname) for member in tar] == [
            ("Dockerfile", tarfile.REGTYPE, ""),
            ("passwd", tarfile.SYMTYPE, "/etc/passwd"),
        ]


def test_a_namespace_in_podmans_words() -> None:
    details = {"HostConfig": {"IDMappings": {"UidMap": ["0:5000:10", "10:9000:5"], "GidMap": ["0:7000:10"]}}}
    assert Ids.of(details) == Ids(((0, 5000, 10), (10, 9000, 5)), ((0, 7000, 10),))
    assert Ids.of({"HostConfig": {}}) == Ids()
