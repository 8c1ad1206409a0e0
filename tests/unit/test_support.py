"""What a bug report takes of a host, and what it leaves there; the archive of it."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import sqlite3
import subprocess
import sys
import tarfile
import time
import zlib
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from click.testing import CliRunner

from binder_onprem import cli
from binder_onprem.support import archive, look, running
from binder_onprem.support.sources import Order
from tests.unit.plugins import PLAYBOOKS, answer, plugin

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ("site", "file", "database", "session", "cookie", "elsewhere", "dashed")
PLANTED = {name: f"{name}-{hashlib.sha256(name.encode()).hexdigest()[:20]}" for name in NAMES}
ENV = {"PATH": os.environ["PATH"]}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Of a Binder that logs its secrets."""
    place = tmp_path / "home"
    for name in ("secrets", "hub", "logs/parts", "etc"):
        (place / name).mkdir(parents=True)
    (place / "secrets" / "site-secret").write_text(PLANTED["site"] + "\n")
    (place / "hub" / "cookie-secret").write_text(PLANTED["cookie"] + "\n")
    for name in ("elsewhere", "dashed"):
        (tmp_path / name).write_text(PLANTED[name])
    settings = {
        "database": f"postgresql+asyncpg://b:{PLANTED['database']}@db.uni.example/b",
        "listen": {"port": 8600},
        "providers": [{"kind": "gitlab", "token_file": str(tmp_path / "elsewhere")}, {"kind": "x", "password": PLANTED["file"]}],
        "agent-token-file": str(tmp_path / "dashed"),
    }
    (place / "config.yaml").write_text(yaml.safe_dump(settings))
    (place / "etc" / "storage.conf").write_text('remap-user = "carl"')
    log = "\n".join([
        "first",
        *(f"a {value} z {base64.b64encode(('u:' + value).encode()).decode()}" for name, value in PLANTED.items() if name != "session"),
        f"GET /user/alice/lab?token={PLANTED['session']} 200 (alice@10.0.0.1)",
        '{"event": "launched", "user": "bob"}',
        "carol has asked, alice, too",
        "200 GET /hub/api/users?state=active (binder@127.0.0.1); 200 GET /hub/api (course@127.0.0.1)",
        "last",
    ])  # fmt: skip
    (place / "logs" / "parts" / "hub.log").write_text(log)
    (place / "logs" / "parts" / "link.log").symlink_to(tmp_path / "elsewhere")
    with closing(sqlite3.connect(place / "hub" / "jupyterhub.sqlite")) as database:
        database.execute("CREATE TABLE users (name TEXT)")
        database.execute("CREATE TABLE services (name TEXT)")
        database.execute("INSERT INTO users VALUES ('carol')")
        database.execute("INSERT INTO services VALUES ('course')")
        database.commit()
    return place


def order(home: Path, **more: Any) -> Order:
    return Order(home=str(home), **{"key": b"k", "lines": 50, "seconds": 60, **more})


def test_a_report_has_what_is_needed_and_no_secret_and_nobodys_name(home: Path) -> None:
    found = look.report(order(home))
    text = json.dumps(found)
    assert [name for name, value in PLANTED.items() if value in text or base64.b64encode(value.encode()).decode()[:-4] in text] == []
    assert not any(name in text for name in ("alice", "bob", "carol"))
    log = found["files"]["logs/hub.log"]
    assert log.startswith("first\n")
    assert log.endswith("\nlast")
    assert "state=active (binder@127.0.0.1); 200 GET /hub/api (course@127.0.0.1)" in log
    assert 'remap-user = "carl"' in found["files"][f"settings{home}/etc/storage.conf"]
    pseudonyms = {word for word in log.replace("/", " ").replace(",", " ").replace('"', " ").split() if word.startswith("person-")}
    assert len(pseudonyms) == 3
    assert "port: 8600" in found["files"][f"settings{home}/config.yaml"]
    assert "db.uni.example" in found["files"][f"settings{home}/config.yaml"]
    assert not [name for name in found["files"] if "secret" in name or "elsewhere" in name]
    assert found["files"]["logs/link.log"] == ""
    assert {"versions.txt", "machine.txt"} <= set(found["files"])
    assert "carol" in json.dumps(look.report(order(home, key=b"")))


def test_what_there_is_no_time_or_room_for_is_named(home: Path) -> None:
    late = look.report(order(home, seconds=0))
    assert any("no time left" in note for note in late["notes"])
    small = look.report(order(home, room=6000))
    assert any("has its size" in note for note in small["notes"])
    assert sum(map(len, small["files"].values())) < 10_000


def test_a_host_gets_the_program_and_the_order_by_its_input_alone(home: Path) -> None:
    role = yaml.safe_load((PLAYBOOKS / "roles" / "support" / "vars" / "main.yml").read_text())
    source = PLAYBOOKS.parent / "binder_onprem" / "support"
    names = {name: "binder_onprem.support" + ("" if name == "__init__" else f".{name}") for name in role["support_names"]}
    modules = [[full, (source / f"{name}.py").read_text()] for name, full in names.items()]
    given = {"modules": modules, "groups": ["registry"], "home": str(home), "lines": 5, "seconds": 60, "key": "00" * 16}
    words = [sys.executable, "-I", "-S", "-c", role["support_begin"]]
    done = subprocess.run(words, input=json.dumps(given), capture_output=True, text=True, check=True, cwd="/")
    found = archive.unpacked(done.stdout)
    assert found is not None
    assert len(found["files"]["logs/hub.log"].splitlines()) <= 6
    assert "last" in found["files"]["logs/hub.log"]


def test_a_program_that_does_not_end_is_ended_with_its_children_and_what_it_said_stays() -> None:
    start = time.monotonic()
    said = running.run(("sh", "-c", "echo begun; sleep 60 & sleep 60"), 0.3, 100, ENV)
    assert (said.text, "was ended" in said.why) == ("begun\n", True)
    assert time.monotonic() - start < 5


def test_of_what_is_too_long_the_end_stays_from_a_whole_line_on(tmp_path: Path) -> None:
    said = running.run(("sh", "-c", "i=0; while [ $i -lt 40000 ]; do echo secret=$i; i=$((i+1)); done"), 20, 100, ENV)
    assert said.text.endswith("secret=39999\n")
    assert said.text.startswith("secret=")
    assert len(said.text) <= 100
    file = tmp_path / "file"
    file.write_text("secret=abc\nlast\n")
    assert running.read(file, 10).text == "last\n"


@pytest.mark.parametrize(("words", "why"), [(("/nonexistent",), "does not run"), (("false",), "exit code 1"), (("true",), "")])
def test_why_there_is_nothing_is_told(words: tuple[str, ...], why: str) -> None:
    assert why in running.run(words, 5, 100, ENV).why


def test_what_is_no_file_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert running.read(tmp_path / "pipe", 10).why == "is no file"
    assert "cannot be read" in running.read(tmp_path / "none", 10).why


def contents(path: Path) -> dict[str, str]:
    with tarfile.open(path) as tar:
        return {entry.name.partition("/")[2]: (tar.extractfile(entry) or sys.exit()).read().decode() for entry in tar}


def test_an_archive_names_who_did_not_answer_and_lies_where_its_owner_alone_reads_it(tmp_path: Path) -> None:
    hosts = {
        "one": archive.Host({"files": {"../../etc/x": f"a {PLANTED['site']}", "a/./b c": "b"}, "notes": ["n"], "seconds": 1}),
        "two": archive.Host(None, "timed out", ({"level": "fail", "text": "token=abc123"},)),
    }
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "registry-push").write_text(PLANTED["site"] + "\n")
    (tmp_path / "secrets" / "large").write_bytes(b"x" * 300_000)
    path = archive.write(tmp_path / "support", hosts, {"people": False}, archive.known_in(tmp_path / "secrets"), 1_800_000_000)
    assert path.name == "binder-support-20270115-080000.tar.gz"
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777, list(path.parent.iterdir())) == (0o600, 0o700, [path])
    found = contents(path)
    assert found["one/__/__/etc/x"] == "a [removed]"
    assert found["one/a/_/b_c"] == "b"
    assert "abc123" not in found["two/status.json"]
    manifest = json.loads(found["MANIFEST.json"])
    assert (manifest["hosts"]["one"]["answered"], manifest["hosts"]["two"]) == (True, {"answered": False, "why": "timed out"})
    assert manifest["files"]["one/a/_/b_c"]["sha256"] == hashlib.sha256(b"b").hexdigest()
    assert "pseudonyms" in found["README.txt"]


@pytest.mark.parametrize("line", [
    "", "x", "é", base64.b64encode(b"x").decode(), base64.b64encode(zlib.compress(b"[]")).decode(),
    base64.b64encode(zlib.compress(b'{"files": 1}')).decode(),
    base64.b64encode(zlib.compress(json.dumps({"files": {"x": "y" * 1000}}).encode())[:-5]).decode(),
    base64.b64encode(zlib.compress(b" " * 2000 + b'{"files": {}}')).decode(),
])  # fmt: skip
def test_what_is_no_report_is_none(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "UNPACKED", 1500)
    assert archive.unpacked(line) is None


def test_the_module_tells_where_the_archive_is_and_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module = plugin("library/binder_support.py")
    silent = {"report": "", "why": "timed out", "unreachable": True, "status": []}
    good = {"report": look.packed({"files": {"a": "b"}, "notes": []}), "why": "", "unreachable": False, "status": []}
    asked = {"source": str(PLAYBOOKS.parent), "directory": str(tmp_path / "support"), "secrets": str(tmp_path)}
    hosts = json.dumps({"one": good, "two": silent})
    assert answer(module, capsys, **asked, hosts=hosts, _ansible_check_mode=True)["changed"]
    assert not (tmp_path / "support").exists()
    told = answer(module, capsys, **asked, hosts=hosts)
    (one,), (two,) = told["rows"]["one"], told["rows"]["two"]
    assert (one["level"], told["path"] in one["text"]) == ("ok", True)
    assert (two["level"], "timed out" in two["text"], "ssh" in two["fix"]) == ("warn", True, True)
    (tmp_path / "file").write_text("")
    failed = answer(module, capsys, **{**asked, "directory": str(tmp_path / "file" / "x")}, hosts=hosts)
    assert "support_directory" in failed["msg"]


@pytest.mark.skipif(os.geteuid() != 0, reason="reads journals, which needs root")
def test_one_machine_has_the_command_also_where_its_settings_are_broken(home: Path, tmp_path: Path) -> None:
    (home / "config.yaml").write_text(f"nonsense: true\npassword: {PLANTED['file']}\n")
    done = CliRunner().invoke(cli.main, ["--home", str(home), "support", "--to", str(tmp_path / "to"), "--lines", "5", "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    (path,) = (tmp_path / "to").iterdir()
    assert told["path"] == str(path)
    found = contents(path)
    assert any("nonsense" in text for text in found.values())
    assert not any(PLANTED["file"] in text for text in found.values())
