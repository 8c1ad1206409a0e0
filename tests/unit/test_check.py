"""Faults that `check` finds by asking: package sources, certificates, secrets, the registry's account."""

from __future__ import annotations

import base64
import os
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, ClassVar

import pytest

from binder_onprem.config import Config
from binder_onprem.host import credentials, projectroom, reach, settingfiles
from binder_onprem.host.site_files import SECRETS
from binder_onprem.host.sources import BUNDLES, Sources
from tests.real.tlsregistry import certificates

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Answers(BaseHTTPRequestHandler):
    """Answers every request with the server's status; remembers what was asked."""

    asked: ClassVar[list[str]] = []
    account = ""

    def do_HEAD(self) -> None:
        self.asked.append(f"{self.requestline} {self.headers.get('Authorization', '')}")
        self.send_response(self.server.status)  # type: ignore[attr-defined]
        self.end_headers()

    def do_GET(self) -> None:
        self.server.status = 200 if self.headers.get("Authorization") == self.account else 401  # type: ignore[attr-defined]
        self.do_HEAD()

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as found:
        found.status = 404  # type: ignore[attr-defined]
        Answers.asked.clear()
        thread = threading.Thread(target=found.serve_forever, daemon=True)
        thread.start()
        yield found
        found.shutdown()
        thread.join()


BUNDLE = next(file for file in BUNDLES if file.is_file()).read_bytes()


def given(pypi: str, proxy: str | None = None, bundle: bytes = BUNDLE) -> Sources:
    return Sources(bundle, pypi, "", None, None, None, proxy, (), frozenset())


def levels(sources: Sources) -> list[tuple[str, str]]:
    found = list(reach.findings(sources))
    assert all(finding.fix for finding in found if finding.level != "ok")
    assert not any("secret" in finding.text for finding in found)
    return [(finding.level, finding.subject) for finding in found]


def test_a_source_that_answers_anything_is_there(server: ThreadingHTTPServer) -> None:
    url = f"http://user:secret@127.0.0.1:{server.server_port}/simple/"
    assert levels(given(url)) == [("ok", "mirrors")]
    server.status = 503  # type: ignore[attr-defined]
    assert levels(given(url)) == [("warn", "mirrors")]


def test_a_source_that_does_not_answer(server: ThreadingHTTPServer) -> None:
    server.server_close()
    assert levels(given(f"http://user:secret@127.0.0.1:{server.server_port}/simple/")) == [("warn", "mirrors")]


def test_the_proxy_is_asked_where_there_is_one(server: ThreadingHTTPServer) -> None:
    assert levels(given("http://mirror.invalid/simple/", f"http://127.0.0.1:{server.server_port}")) == [("ok", "mirrors")]
    assert Answers.asked[0].startswith("HEAD http://mirror.invalid/simple/")


def test_a_certificate_of_somebody_elses(server: ThreadingHTTPServer, tmp_path: Path) -> None:
    authority, certificate, key = certificates(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    url = f"https://localhost:{server.server_port}/"
    assert levels(given(url, bundle=authority.read_bytes())) == [("ok", "mirrors")]
    assert levels(given(url)) == [("fail", "certificates")]


def test_a_bundle_without_certificates() -> None:
    found = list(reach.findings(Sources(b"nothing", None, "", None, None, None, None, (), frozenset({("127.0.0.1", 1)}))))
    assert [(finding.level, finding.subject) for finding in found] == [("fail", "certificates")]


@pytest.fixture
def site(tmp_path: Path) -> Config:
    config = Config(home=tmp_path)
    config.secrets.mkdir(mode=0o700)
    for name in SECRETS:
        (config.secrets / name).touch(mode=0o600)
        (config.secrets / name).write_text("builder:word\n")
    return config


@pytest.mark.skipif(os.geteuid() != 0, reason="the secrets are root's")
def test_secrets(site: Config) -> None:
    assert [finding.level for finding in credentials.findings(site)] == ["ok"]
    (site.secrets / "site-secret").unlink()
    (site.secrets / "hub-token").write_text("")
    (site.secrets / "admin-token").chmod(0o644)
    site.secrets.chmod(0o755)
    found = [(finding.text.removeprefix(str(site.secrets)), bool(finding.fix)) for finding in credentials.findings(site)]
    assert sorted(found) == [
        (" is open to others than root", True),
        ("/admin-token can be read by others than root", True),
        ("/hub-token is empty", True),
        ("/site-secret is missing", True),
    ]
    assert list(credentials.findings(Config(home=site.home / "new"))) == []


def test_a_registry_that_refuses_the_account(server: ThreadingHTTPServer, site: Config) -> None:
    config = site.model_copy(update={"listen": site.listen.model_copy(update={"port": server.server_port - 4})})
    Answers.account = "Basic " + base64.b64encode(b"builder:word").decode()
    assert credentials.registry(config) is None
    (site.secrets / "registry-account").write_text("builder:other\n")
    found = credentials.registry(config)
    assert found
    assert (found.level, bool(found.fix)) == ("fail", True)


def test_files_that_settings_name(tmp_path: Path) -> None:
    for name, text in (("good", "s" * 32), ("short", "s"), ("empty", ""), ("token", "t")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o600)
    (tmp_path / "token").chmod(0o644)
    hooks = {name: {"kind": "github", "secret_file": tmp_path / name, "repositories": ["x"], "link": "gh/o/r"} for name in ("good", "short", "gone")}
    webhooks = {name: {"url": "https://w.test/", "secret_file": tmp_path / name} for name in ("empty", "good")}
    providers = [{"kind": "github", "token_file": tmp_path / "token"}]
    config = Config.model_validate({"home": tmp_path, "hooks": hooks, "events": {"webhooks": webhooks}, "providers": providers})
    found = sorted((finding.subject, finding.level, finding.text.replace(str(tmp_path), "")) for finding in settingfiles.findings(config))
    assert found == [
        ("events.webhooks.empty.secret_file", "fail", "/empty is empty"),
        ("hooks.gone.secret_file", "fail", "/gone is missing"),
        ("hooks.short.secret_file", "fail", "/short must hold at least 16 characters"),
        ("providers.0.token_file", "warn", "everybody on this machine can read /token"),
    ]
    assert not list(settingfiles.findings(Config(home=tmp_path)))
    only = Config.model_validate({"home": tmp_path, "hooks": {"good": hooks["good"]}})
    assert [finding.level for finding in settingfiles.findings(only)] == ["ok"]


def test_projects_need_loop_devices_and_room(tmp_path: Path) -> None:
    def said(free: int, loop: Path = tmp_path, **limits: object) -> list[tuple[str, str]]:
        config = Config.model_validate({"home": tmp_path, "auth": {"kind": "native"}, "projects": {"enabled": True, "total": "1GiB"} | limits})
        return [(one.level, one.text) for one in projectroom.findings(config, free, loop, ())]

    assert said(0, enabled=False) == []
    assert said(2**40, tmp_path / "nothing")[0][0] == "fail"
    assert said(2**29) == [("warn", "projects.total promises 1024 MiB, and 512 MiB are there for them")]
    volume = tmp_path / "projects" / ("0" * 16) / "volume.img"
    volume.parent.mkdir(parents=True)
    volume.write_bytes(bytes(2**20))
    assert said(2**30) == [("ok", "they take 1 MiB of at most 1024 MiB")]
    assert said(2**30 - 2**19)[0][0] == "ok"  # what they have taken already is theirs


def test_projects_share_their_ids_with_nobody(tmp_path: Path) -> None:
    config = Config.model_validate({"home": tmp_path, "auth": {"kind": "native"}, "projects": {"enabled": True, "total": "1GiB"}})
    file = tmp_path / "subuid"
    file.write_text(
        "# by hand\nbelow:1610547200:65536\nlast:1879048191:1\nover:1000000:2000000000\nbeyond:1879048192:65536\ncontainers:2000000:65536\nx:y:z\n",
        encoding="utf-8",
    )
    found = [one.text.split()[0] for one in projectroom.findings(config, 2**40, tmp_path, (file, tmp_path / "none")) if one.level == "warn"]
    assert found == ["last", "over"]
