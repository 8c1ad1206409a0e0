"""What a host's archive holds, and what is refused before anything is written."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.plugins import plugin

if TYPE_CHECKING:
    from pathlib import Path

backup = plugin("roles/backup/files/binder_backup.py")
needs_age = pytest.mark.skipif(not shutil.which("age"), reason="age is not installed")


@pytest.fixture
def key() -> tuple[bytes, str]:
    """One of age, and what encrypts to it."""
    made = subprocess.run(["age-keygen"], capture_output=True, check=True).stdout
    return made, made.decode().split("public key: ")[1].split()[0]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A state with a database that somebody writes, a link and its blob, and what is of no use later."""
    home = tmp_path / "home"
    for name, text in {"repositories/link": "sha", "blobs/sha": "b" * 9000, "a_uploads/x": "y", "config.yaml": "a: 1\n", "half.new": "x"}.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(text)
    with closing(sqlite3.connect(home / "binder.sqlite")) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("CREATE TABLE builds (id TEXT)")
        database.execute("INSERT INTO builds VALUES ('one')")
        database.commit()
    return home


def test_links_come_before_blobs_and_what_is_half_done_does_not_come(home: Path) -> None:
    (home / "project" / "mounted").mkdir(parents=True)
    (home / "project" / "mounted" / "file").write_text("x")
    (home / "elsewhere").symlink_to("/etc")
    names = [str(path.relative_to(home)) for path in backup.found(home) if path.is_file()]
    assert names.index("repositories/link") < names.index("blobs/sha")
    assert {"half.new", "project/mounted/file", "elsewhere"}.isdisjoint(names)


@pytest.mark.parametrize(("name", "may"), [("srv/a/b", True), ("srv/a", True), ("srv/ab", False), ("srv/a/../x", False), ("etc/shadow", False)])
def test_a_member_is_written_below_what_a_backup_takes_only(name: str, *, may: bool) -> None:
    assert backup.allowed(name, ["/srv/a"]) is may


def test_what_is_sent_is_whole_and_on_another_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive, target = tmp_path / "h.1.age", tmp_path / "target"
    archive.write_bytes(b"archive")
    (tmp_path / "h.1.age.sha256").write_text(f"{backup.digest_of(archive)}  h.1.age\n")
    with pytest.raises(OSError, match="no directory"):
        backup.sent(archive, target)
    target.mkdir()
    monkeypatch.setattr(backup, "own", lambda _: True)
    with pytest.raises(OSError, match="own disk"):
        backup.sent(archive, target)
    assert not list(target.iterdir())
    monkeypatch.setattr(backup, "own", lambda _: False)
    backup.sent(archive, target)
    assert sorted(path.name for path in target.iterdir()) == ["h.1.age", "h.1.age.sha256"]
    (tmp_path / "h.1.age.sha256").write_text(f"{'0' * 64}  h.1.age\n")
    (target / "h.1.age").unlink()
    with pytest.raises(OSError, match="not what was read back"):
        backup.sent(archive, target)
    assert not (target / "h.1.age").exists()


def test_the_newest_stay() -> None:
    assert backup.kept(["h.2.age", "h.1.age", "h.3.age"], 2) == (["h.2.age", "h.3.age"], ["h.1.age"])


@needs_age
def test_what_is_restored_is_what_was_there(home: Path, tmp_path: Path, key: tuple[bytes, str]) -> None:
    place = tmp_path / "h.1.age"
    with closing(sqlite3.connect(home / "binder.sqlite")) as writing:
        writing.execute("INSERT INTO builds VALUES ('two')")
        writing.commit()
        backup.written(key[1], "h", [home], place)
    assert b"config.yaml" not in place.read_bytes()
    shutil.rmtree(home)
    backup.restore(place, key[0], {"roots": [str(home)]})
    assert (home / "blobs" / "sha").read_text() == "b" * 9000
    assert (home / "config.yaml").stat().st_mode & 0o777 == 0o644
    with closing(sqlite3.connect(home / "binder.sqlite")) as database:
        assert database.execute("SELECT id FROM builds").fetchall() == [("one",), ("two",)]


@needs_age
@pytest.mark.parametrize("harm", ["cut", "flipped", "key"])
def test_a_damaged_archive_and_a_wrong_key_are_refused_before_anything_is_written(harm: str, home: Path, tmp_path: Path, key: Any) -> None:
    place = tmp_path / "h.1.age"
    backup.written(key[1], "h", [home], place)
    data = bytearray(place.read_bytes())
    data[-40] ^= 1
    place.write_bytes({"cut": bytes(data[:-200]), "flipped": bytes(data), "key": place.read_bytes()}[harm])
    opens = subprocess.run(["age-keygen"], capture_output=True, check=True).stdout if harm == "key" else key[0]
    shutil.rmtree(home)
    with pytest.raises(backup.Damaged, match="key does not open" if harm == "key" else "damaged"):
        backup.restore(place, opens, {"roots": [str(home)]})
    assert not home.exists()
