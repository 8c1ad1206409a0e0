"""What the sandbox does with a record: files as promised, archives that behave, and everything else refused in words."""

from __future__ import annotations

import io
import os
import stat
import struct
import tarfile
import time
import zipfile
import zlib
from typing import TYPE_CHECKING, Any

import pytest

from binder_onprem.content import Content, File, place
from binder_onprem.errors import AddressRefused, BinderError, BuildFailed, LimitHit, ProviderUnavailable, RefNotFound
from binder_onprem.sandbox import unpack as unpacking
from binder_onprem.sandbox.download import Budget, _told
from binder_onprem.sandbox.fetch import Fetch
from binder_onprem.sandbox.unpack import ENTRIES, is_archive, settle, unpack
from tests.repos import hosts
from tests.repos.hosts import RESOURCE, SHA, Host, host, tarred, zipped

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LIMIT = 4 * 1024**2
FILES = {"a.ipynb": b"{}", "sub/data.csv": b"1,2\n"}


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with host() as served:
        yield served


def fetched(work: Path, content: Content, limit: int = LIMIT, stall: float = 2) -> tuple[dict[str, bytes], list[str]]:
    said: list[str] = []
    waited: list[float] = []
    Fetch(content, work, said.append, stall, limit, sleep=waited.append).make(work / "src")
    assert sorted(os.listdir(work)) == ["src"]  # noqa: PTH208 - names
    return tree(work / "src"), said


def tree(top: Path) -> dict[str, bytes]:
    return {str(path.relative_to(top)): path.read_bytes() for path in top.rglob("*") if path.is_file()}


def lone(at: Host, data: bytes, **more: Any) -> Content:
    at.serves("/f", data)
    return Content("files", (File(f"{at.url}/f", "x.zip", **more),), unpack=True)


def test_files_one_by_one(at: Host, tmp_path: Path) -> None:
    at.serves("/1", b"{}")
    at.serves("/2", b"1,2\n")
    files = (File(f"{at.url}/1", "a.ipynb", 2, f"md5:{hosts.md5(b'{}')}"), File(f"{at.url}/2", "sub/data.csv"))
    found, said = fetched(tmp_path, Content("files", files))
    assert found == FILES
    assert said == ["Fetching a.ipynb (0.0 MiB)", "Fetching sub/data.csv"]


@pytest.mark.parametrize("mode", ["zip", "w", "w:gz", "w:bz2", "w:xz"])
@pytest.mark.parametrize("top", ["", "owner-repo-1a2b3c/"])
def test_a_lone_archive_is_taken_apart(at: Host, tmp_path: Path, mode: str, top: str) -> None:
    named = {top + name: data for name, data in FILES.items()}
    found, said = fetched(tmp_path, lone(at, zipped(named) if mode == "zip" else tarred(named, mode)))
    assert found == FILES
    assert said[-1] == "Unpacking x.zip"


def test_what_is_no_archive_stays_what_it_is(at: Host, tmp_path: Path) -> None:
    import gzip  # noqa: PLC0415

    for number, data in enumerate((b"", b"text", gzip.compress(b"1,2\n"), b"\x1f\x8b" + b"x" * 600, b"PK", os.urandom(2000))):
        (tmp_path / str(number)).mkdir()
        assert fetched(tmp_path / str(number), lone(at, data))[0] == {"x.zip": data}
    two = Content("files", (File(f"{at.url}/f", "a.zip"), File(f"{at.url}/f", "b.zip")))
    at.serves("/f", zipped(FILES))
    (tmp_path / "two").mkdir()
    assert set(fetched(tmp_path / "two", two)[0]) == {"a.zip", "b.zip"}


def test_a_bag_is_waited_for_and_its_contents_count(at: Host, tmp_path: Path) -> None:
    hosts.hydroshare(at, FILES, unready=3)
    bag = File(f"{at.url}/django_s3/download/bags/{RESOURCE}.zip", "x.zip")
    found, said = fetched(tmp_path, Content("bag", (bag,), unpack=True, inside=f"{RESOURCE}/data/contents", wait=60))
    assert found == FILES
    assert said[0] == "The host prepares the archive."
    assert len(at.seen) == 5


def test_the_vault_cooks_and_its_directory_counts(at: Host, tmp_path: Path) -> None:
    hosts.swh(at, FILES, pending=2)
    cooking = File(f"{at.url}/api/1/vault/flat/swh:1:dir:{SHA}/", "directory.tar.gz")
    found, said = fetched(tmp_path, Content("vault", (cooking,), unpack=True, wait=60))
    assert found == FILES
    assert "Software Heritage: Processing..." in said


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (b'{"status": "failed", "progress_message": "oops"}', BuildFailed, "could not cook"),
        (b'{"status": "pending"}', ProviderUnavailable, "get the archive ready in 0 min"),
        (b"[]", ProviderUnavailable, "does not answer"),
        (b'{"status": 1}', ProviderUnavailable, "does not answer"),
        (b'{"status": "done", "fetch_url": "file:///etc/passwd"}', AddressRefused, "not one that links may name"),
        (b"[" * 2_000_000, ProviderUnavailable, "does not answer"),
    ],
)
def test_a_vault_that_does_not_serve(at: Host, tmp_path: Path, answer: bytes, error: type[BinderError], words: str) -> None:
    at.serves("/v/", answer)
    with pytest.raises(error, match=words):
        fetched(tmp_path, Content("vault", (File(f"{at.url}/v/", "d"),), unpack=True, wait=0.01))


def test_a_bag_that_never_comes(at: Host, tmp_path: Path) -> None:
    at.serves("/bag", b"<html>", "text/html")
    with pytest.raises(ProviderUnavailable, match="get the archive ready"):
        fetched(tmp_path, Content("bag", (File(f"{at.url}/bag", "b.zip"),), unpack=True, wait=0.01))


@pytest.mark.parametrize(
    ("status", "headers", "body", "file", "error", "words"),
    [
        (404, {}, b"", {}, RefNotFound, "is not there"),
        (403, {}, b"", {}, RefNotFound, "is not there"),
        (500, {}, b"", {}, ProviderUnavailable, "does not answer"),
        (429, {}, b"", {}, ProviderUnavailable, "asked too often"),
        (302, {"Location": "file:///etc/passwd"}, b"", {}, AddressRefused, "not one that links may name"),
        (302, {"Location": "ftp://h/x"}, b"", {}, AddressRefused, "not one that links may name"),
        (302, {"Location": "/f"}, b"", {}, ProviderUnavailable, "does not answer"),
        (200, {}, b"12345", {"size": 4}, BuildFailed, "longer than the record says"),
        (200, {}, b"123", {"size": 4}, ProviderUnavailable, "breaks off"),
        (200, {"Content-Length": "999999999999"}, b"123", {}, ProviderUnavailable, "breaks off"),
        (200, {"Content-Length": "-1"}, b"123", {"size": 3, "checksum": "md5:" + "0" * 32}, BuildFailed, "checksum"),
        (200, {"Content-Length": "2"}, b"1" * 4096, {"size": 4096}, ProviderUnavailable, "breaks off"),
        (200, {"Transfer-Encoding": "chunked"}, b"zzz\r\n", {}, ProviderUnavailable, "breaks off"),
        (200, {}, b"x" * (LIMIT + 1), {}, LimitHit, r"larger than 4 MiB, which is the limit here \(build.repository\)"),
        (200, {}, b"123", {"checksum": "sha256:" + "0" * 64}, BuildFailed, "checksum"),
    ],
)
def test_hosts_that_lie(  # noqa: PLR0913, PLR0917 - a table
    at: Host, tmp_path: Path, status: int, headers: dict[str, str], body: bytes, file: dict[str, Any], error: type[BinderError], words: str
) -> None:
    at.answers["/f"] = (status, headers, body)
    with pytest.raises(error, match=words):
        fetched(tmp_path, Content("files", (File(f"{at.url}/f", "f", **file),)))


def test_a_host_that_drips_or_never_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket  # noqa: PLC0415
    import threading  # noqa: PLC0415

    for name in ("http_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        ended, over = threading.Event(), threading.Event()

        def drip() -> None:
            for sent in (b"HTTP/1.0 200 OK\r\n\r\n", b""):
                with server.accept()[0] as client:
                    client.sendall(sent)
                    while sent and not ended.wait(0.05):
                        try:
                            client.sendall(b"x")
                        except OSError:
                            break
                    if not sent:
                        over.wait(10)

        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/f"
        began = time.monotonic()
        with pytest.raises(ProviderUnavailable, match="breaks off"):
            fetched(tmp_path, Content("files", (File(url, "f"),)), stall=0.5)
        ended.set()
        (tmp_path / "2").mkdir()
        with pytest.raises(ProviderUnavailable, match="did not answer in"):
            fetched(tmp_path / "2", Content("files", (File(url, "f"),)), stall=0.5)
        assert time.monotonic() - began < 20
        over.set()
        thread.join()


def test_the_gates_refusal_is_told_apart_from_the_servers() -> None:
    assert isinstance(_told(403, "The address rules of this site do not let builds connect to this host."), AddressRefused)
    assert isinstance(_told(403, "Forbidden"), RefNotFound)


def archive(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "archive"
    path.write_bytes(data)
    return path


def opened(tmp_path: Path, data: bytes, limit: int = LIMIT) -> Path:
    path = archive(tmp_path, data)
    assert is_archive(path)
    unpack(path, tmp_path / "out", Budget(limit, limit))
    return tmp_path / "out"


def tar_of(*entries: tarfile.TarInfo | tuple[tarfile.TarInfo, bytes], mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as made:  # type: ignore[call-overload]
        for entry in entries:
            info, data = entry if isinstance(entry, tuple) else (entry, b"")
            info.size = len(data)
            made.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def info(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o644) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.mode = kind, link, mode
    return made


def zip_link(name: str, target: str, *more: tuple[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        entry = zipfile.ZipInfo(name)
        entry.create_system, entry.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        made.writestr(entry, target)
        for other, data in more:
            made.writestr(other, data)
    return buffer.getvalue()


BAD_NAMES = ["../evil", "/evil", "a/../../evil", "..", "a/..", "./../evil", "..\\evil", "C:\\..\\..\\evil", "a\x01b", "x" * 300, "a/" * 100 + "b"]


@pytest.mark.parametrize("name", BAD_NAMES)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_names_that_lead_out(tmp_path: Path, name: str, kind: str) -> None:
    data = zipped({"fine": b"1", name: b"2"}) if kind == "zip" else tar_of((info("fine"), b"1"), (info(name), b"2"))
    with pytest.raises(BuildFailed, match="leads out of it"):
        opened(tmp_path, data)
    assert not (tmp_path / "evil").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["archive", "out"]


@pytest.mark.parametrize(
    "entries",
    [
        (info("l", tarfile.SYMTYPE, "/etc"), (info("l/x"), b"1")),
        (info("l", tarfile.SYMTYPE, "."), (info("l/x"), b"1")),
        (info("l", tarfile.SYMTYPE, "../.."),),
        (info("l", tarfile.SYMTYPE, "/etc/passwd"),),
        (info("a/b/c/d", tarfile.SYMTYPE, "../../.."), info("a/b/m", tarfile.SYMTYPE, "c/d/../../..")),
        (info("l", tarfile.LNKTYPE, "/etc/passwd"),),
        (info("l", tarfile.LNKTYPE, "../archive"),),
        (info("l", tarfile.LNKTYPE, "absent"),),
        (info("l", tarfile.SYMTYPE, "x"), info("l", tarfile.SYMTYPE, "/etc")),
        (info("l", tarfile.SYMTYPE, "archive"), info("m", tarfile.LNKTYPE, "l")),
    ],
)
def test_links_that_lead_out_or_are_written_through(tmp_path: Path, entries: tuple[Any, ...]) -> None:
    with pytest.raises(BuildFailed, match="leads out of it"):
        opened(tmp_path, tar_of(*entries))


def test_links_in_zips(tmp_path: Path) -> None:
    with pytest.raises(BuildFailed, match="leads out of it"):
        opened(tmp_path, zip_link("l", "/etc/passwd"))
    (tmp_path / "2").mkdir()
    with pytest.raises(BuildFailed, match="leads out of it"):
        opened(tmp_path / "2", zip_link("l", ".", ("l/x", b"1")))
    (tmp_path / "3").mkdir()
    out = opened(tmp_path / "3", zip_link("d/l", "../x", ("x", b"1")))
    assert (out / "d" / "l").is_symlink()
    assert (out / "d" / "l").read_bytes() == b"1"


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_devices(tmp_path: Path, kind: bytes) -> None:
    with pytest.raises(BuildFailed, match="neither a file nor a directory"):
        opened(tmp_path, tar_of(info("d", kind)))


def test_what_is_kept_of_modes_and_left_out(tmp_path: Path) -> None:
    entries = ((info("run", mode=0o4755), b"#!"), (info("plain", mode=0o666), b""), (info("__MACOSX/._run"), b"x"), info("e/", tarfile.DIRTYPE))
    out = opened(tmp_path, tar_of(*entries, (info("h", tarfile.LNKTYPE, "run")), info("s", tarfile.SYMTYPE, "run")))
    assert {path.name: stat.S_IMODE(path.lstat().st_mode) for path in out.iterdir() if path.is_file() and not path.is_symlink()} == {
        "run": 0o755,
        "plain": 0o644,
        "h": 0o755,
    }
    assert (out / "h").read_bytes() == b"#!"
    assert (out / "s").readlink().name == "run"
    assert sorted(path.name for path in out.iterdir()) == ["e", "h", "plain", "run", "s"]


@pytest.mark.parametrize("kind", ["zip", "w:gz", "w:xz"])
def test_a_bomb_stops_at_what_comes_out(tmp_path: Path, kind: str) -> None:
    bomb = {f"{number}": b"\0" * (20 * 1024**2) for number in range(3)}
    data = zipped(bomb) if kind == "zip" else tarred(bomb, kind)
    assert len(data) < 200_000
    with pytest.raises(LimitHit, match="larger than 4 MiB"):
        opened(tmp_path, data)
    assert sum(path.stat().st_size for path in (tmp_path / "out").rglob("*")) <= LIMIT + 1024**2


def test_a_bomb_in_what_is_left_out_stops_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacking, "HEADERS", 1024**2)
    with pytest.raises(LimitHit, match="larger than 4 MiB"):
        opened(tmp_path, tarred({"__MACOSX/x": b"\0" * (20 * 1024**2)}))


def test_entries_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacking, "ENTRIES", 50)
    for number, data in enumerate((zipped({str(n): b"" for n in range(60)}), tarred({str(n): b"" for n in range(60)}))):
        (tmp_path / str(number)).mkdir()
        with pytest.raises(LimitHit, match="more than 50 entries"):
            opened(tmp_path / str(number), data)


def test_a_zips_table_of_contents_is_not_read_when_it_is_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacking, "DIRECTORY_BYTES", 1000)
    data = zipped({str(n): b"" for n in range(60)})
    with pytest.raises(LimitHit, match=f"more than {ENTRIES:,} entries"):
        opened(tmp_path, data)
    end = data.rfind(b"PK\x05\x06")
    size, offset = struct.unpack("<LL", data[end + 12 : end + 20])
    large = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 60, 60, size, offset) + struct.pack("<4sLQL", b"PK\x06\x07", 0, end, 1)
    small = data[end : end + 12] + struct.pack("<LL", 46, offset) + data[end + 20 :]  # the old field lies, the new one counts
    (tmp_path / "64").mkdir()
    with pytest.raises(LimitHit):
        opened(tmp_path / "64", data[:end] + large + small)


def test_a_million_entries_are_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacking, "ENTRIES", 1000)
    entry = tarfile.TarInfo("x").tobuf(tarfile.USTAR_FORMAT)
    path = tmp_path / "many.tar.gz"
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    with path.open("wb") as file:
        for _ in range(100):
            file.write(packer.compress(entry * 10_000))
        file.write(packer.flush())
    with pytest.raises(LimitHit, match="1,000 entries"):
        unpack(path, tmp_path / "out", Budget(LIMIT, LIMIT))


def test_damaged_archives(tmp_path: Path) -> None:
    whole = zipped(FILES)
    encrypted = bytearray(zipped({"a": b"secret"}))
    encrypted[6] |= 1
    central = encrypted.find(b"PK\x01\x02")
    encrypted[central + 8] |= 1
    method = bytearray(zipped({"a": b"x" * 100}))
    method[8:10] = method[method.find(b"PK\x01\x02") + 10 : method.find(b"PK\x01\x02") + 12] = b"\x63\x00"
    flipped = bytearray(zipped({"a": os.urandom(5000)}))
    flipped[2000] ^= 255
    twice = tar_of((info("a"), b"1"), (info("a/b"), b"2"))
    cases = [bytes(encrypted), bytes(method), bytes(flipped), twice, tarred(FILES, "w:bz2")[:-20], tarred({"a": os.urandom(90_000)})[:-9000]]
    cases += [tarred({"a": os.urandom(90_000)}, "w:xz")[:-9000], whole[:10] + b"\xff" * 20 + whole[30:]]
    for number, data in enumerate(cases):
        (tmp_path / str(number)).mkdir()
        path = archive(tmp_path / str(number), data)
        with pytest.raises(BuildFailed, match="damaged"):
            unpack(path, tmp_path / str(number) / "out", Budget(LIMIT, LIMIT))


def test_settling(tmp_path: Path) -> None:
    (tmp_path / "found" / "only" / "sub").mkdir(parents=True)
    settle(tmp_path / "found", "", tmp_path / "src")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["src"]
    assert (tmp_path / "src" / "sub").is_dir()
    (tmp_path / "other").mkdir()
    with pytest.raises(BuildFailed, match="does not have the directory"):
        settle(tmp_path / "other", "a/b", tmp_path / "src2")


@pytest.mark.parametrize(("name", "there"), [("a", "a"), ("./a//b/", "a/b"), ("é/ü", "é/ü"), (" a", " a")])
def test_places(name: str, there: str) -> None:
    assert place(name) == there
