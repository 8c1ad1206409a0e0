"""The commands against a daemon that answers as the real one does, over real HTTP on loopback."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from click.testing import CliRunner, Result

from binder_onprem import cli
from binder_onprem.cli.launch import spec_of
from binder_onprem.cli.opening import session_url
from binder_onprem.errors import InvalidSpec
from binder_onprem.events import encode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

READY = {"phase": "ready", "message": "server running\n", "url": "http://127.0.0.1:1/jupyter/user/x/", "token": "T0"}
FAILED = {"phase": "failed", "message": "The build ran out of memory.\n", "status_code": 422, "code": "limit"}


class Daemon:
    """Answers with what a test scripts; remembers what was asked."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any] | None] = [{"phase": "waiting", "message": "Waiting…\n"}, READY]
        self.asked: list[tuple[str, str]] = []
        self.last_ids: list[str | None] = []
        self.logs: list[tuple[str, str]] = []

    async def build(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(("GET", request.raw_path))
        last = request.headers.get("Last-Event-ID")
        self.last_ids.append(last)
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        for number, event in list(enumerate(self.events, 1))[int(last or 0) :]:
            if event is None:  # the connection breaks here, once
                self.events[number - 1] = {"phase": "building", "message": "after the break\n"}
                assert request.transport is not None
                request.transport.close()
                break
            await answer.write(encode(event, str(number)))
        return answer

    async def log(self, request: web.Request) -> web.StreamResponse:
        """The next of what is scripted: its text, and how the stream ends; the last one stays."""
        text, end = self.logs.pop(0) if len(self.logs) > 1 else self.logs[0]
        answer = web.StreamResponse()
        await answer.prepare(request)
        await answer.write(text.encode())
        if end == "silence":
            await asyncio.sleep(1)
        if end == "break" and request.transport:
            request.transport.close()
        return answer

    async def other(self, request: web.Request) -> web.StreamResponse:
        self.asked.append((request.method, request.raw_path))
        if request.headers.get("Authorization") != "Bearer ADMIN":
            return web.json_response({"code": "refused", "message": "No."}, status=403)
        if request.path.endswith("/log"):
            return await self.log(request) if "follow" in request.query else web.Response(text="one\ntwo\n")
        if request.path == "/api/builds/0123456789abcdef":
            return web.json_response({"state": "running" if len(self.logs) > 1 else "built"})
        if "unknown" in request.path:
            return web.json_response({"code": "not_found", "message": "No such build."}, status=404)
        rows = [{"id": "b1", "state": "built", "repo_url": "[red]https://x/[/]", "commit": "c", "reference": "r@sha256:0", "size": 1, "name": "u"}]
        return web.json_response({"builds": rows, "images": rows, "sessions": rows, "actions": [], "state": "cancelled"})


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[Daemon]:
    fake = Daemon()
    app = web.Application()
    app.router.add_get("/build/{spec:.*}", fake.build)
    app.router.add_route("*", "/{rest:.*}", fake.other)
    runner = web.AppRunner(app)
    await runner.setup()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    await web.TCPSite(runner, "127.0.0.1", port).start()
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "admin-token").write_text("ADMIN\n")
    (tmp_path / "config.yaml").write_text(f"listen: {{port: {port - 3}}}\n")
    yield fake
    await runner.cleanup()


async def command(home: Path, *arguments: str) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, cli.main, ["--home", str(home), *arguments])


async def test_launch_prints_the_url_with_its_token(daemon: Daemon, tmp_path: Path) -> None:
    result = await command(tmp_path, "launch", "--quiet", "gh/a/b/HEAD")
    assert (result.exit_code, result.stdout) == (0, "http://127.0.0.1:1/jupyter/user/x/?token=T0\n")
    assert daemon.asked == [("GET", "/build/gh/a/b/HEAD?resume=true")]


async def test_launch_keeps_percent_encoding(daemon: Daemon, tmp_path: Path) -> None:
    await command(tmp_path, "launch", "git/http%3A%2F%2F127.0.0.1%2Fx/a%2Fb")
    assert daemon.asked == [("GET", "/build/git/http%3A%2F%2F127.0.0.1%2Fx/a%2Fb?resume=true")]


async def test_a_broken_stream_goes_on_where_it_broke(daemon: Daemon, tmp_path: Path) -> None:
    daemon.events.insert(1, None)
    result = await command(tmp_path, "launch", "--json", "gh/a/b/HEAD")
    assert [json.loads(line)["phase"] for line in result.stdout.splitlines()] == ["waiting", "building", "ready"]
    assert daemon.last_ids == [None, "1"]


async def test_a_failure_is_a_sentence_and_its_own_exit_code(daemon: Daemon, tmp_path: Path) -> None:
    daemon.events[-1] = FAILED
    result = await command(tmp_path, "launch", "gh/a/b/HEAD")
    assert result.exit_code == 7
    assert "out of memory" in result.stderr


@pytest.mark.parametrize(
    "arguments", [("builds", "list"), ("images", "list"), ("servers", "list"), ("images", "prune", "--dry-run"), ("builds", "show", "b1")]
)
async def test_lists_as_table_and_as_json(daemon: Daemon, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    plain = await command(tmp_path, *arguments)
    assert plain.exit_code == 0, plain.output
    assert plain.stdout.strip()
    assert json.loads((await command(tmp_path, *arguments, "--json")).stdout)
    assert daemon.asked


async def test_markup_in_a_repository_is_text(daemon: Daemon, tmp_path: Path) -> None:
    assert "[red]https" in (await command(tmp_path, "builds", "list")).stdout
    assert daemon.asked


async def test_log_cancel_stop_and_reap(daemon: Daemon, tmp_path: Path) -> None:
    assert (await command(tmp_path, "builds", "log", "b1")).stdout == "one\ntwo\n"
    assert json.loads((await command(tmp_path, "builds", "log", "b1", "--json")).stdout) == ["one", "two"]
    assert "cancelled" in (await command(tmp_path, "builds", "cancel", "b1")).stdout
    assert (await command(tmp_path, "servers", "stop", "a/b")).exit_code == 0
    assert (await command(tmp_path, "servers", "reap", "--dry-run")).stdout.startswith("Nothing")
    assert ("DELETE", "/api/sessions/a%2Fb") in daemon.asked


async def test_following_a_log_survives_silence_and_restarts(daemon: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("binder_onprem.cli.client.SILENCE", 0.3)
    monkeypatch.setattr("binder_onprem.cli.client._pause", lambda: asyncio.sleep(0.01))
    daemon.logs = [("one\n", "silence"), ("one\ntwo\nthr", "break"), ("one\ntwo\nthr", "shutdown"), ("one\ntwo\nthree\nend", "built")]
    result = await command(tmp_path, "builds", "log", "--follow", "0123456789abcdef")
    assert (result.exit_code, result.stdout) == (0, "one\ntwo\nthree\nend")
    assert len([path for _, path in daemon.asked if "follow" in path]) == 4


async def test_following_a_log_of_a_daemon_that_is_gone_ends(daemon: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("binder_onprem.cli.client.RESTART", 0.2)
    monkeypatch.setattr("binder_onprem.cli.client._pause", lambda: asyncio.sleep(0.01))
    daemon.logs = [("one\n", "break"), ("", "break")]
    result = await command(tmp_path, "builds", "log", "--follow", "0123456789abcdef")
    assert (result.exit_code, result.stdout) == (6, "one\n")
    assert "does not answer" in result.stderr


async def test_errors_of_the_api_keep_their_kind(daemon: Daemon, tmp_path: Path) -> None:
    assert (await command(tmp_path, "builds", "show", "unknown")).exit_code == 5
    (tmp_path / "secrets" / "admin-token").write_text("WRONG")
    assert (await command(tmp_path, "builds", "list")).exit_code == 3
    assert daemon.asked


def test_without_a_binder_the_way_out_is_told(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli.main, ["--home", str(tmp_path), "builds", "list"])
    assert result.exit_code == 11
    assert "binder-onprem up" in " ".join(result.stderr.split())


def test_a_daemon_that_is_down_is_told(tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "admin-token").write_text("x")
    (tmp_path / "config.yaml").write_text("listen: {port: 1}\n")
    assert CliRunner().invoke(cli.main, ["--home", str(tmp_path), "images", "list"]).exit_code == 6


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("listen: {prt: 1}", "listen.prt"),
        ("- 1", "mapping"),
        ("a: [", "YAML"),
        ("listen: {port: x}", "listen.port"),
        ("network: {pool: 10.0.0.0/24}", "/20"),
    ],
)
def test_a_configuration_that_does_not_hold_is_named(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    result = CliRunner().invoke(cli.main, ["--home", str(tmp_path), "builds", "list"])
    assert result.exit_code == 10
    assert words in result.stderr.replace("\n", "")


@pytest.mark.parametrize(
    ("link", "spec"),
    [
        ("gh/a/b/HEAD", "gh/a/b/HEAD"),
        ("http://h:1/v2/git/x%2Fy/HEAD?labpath=a.ipynb", "git/x%2Fy/HEAD"),
        ("https://h/prefix/v2/gh/a/b/HEAD#x", "gh/a/b/HEAD"),
    ],
)
def test_links_and_specs(link: str, spec: str) -> None:
    assert spec_of(link) == spec


@pytest.mark.parametrize("link", ["", "gh", "/etc/passwd", "-x/y", "http://h/about", "gh/a b"])
def test_what_is_neither_is_refused(link: str) -> None:
    with pytest.raises(InvalidSpec):
        spec_of(link)


@pytest.mark.parametrize(
    ("query", "opened"),
    [
        ("", "?token=t"),
        ("?urlpath=lab/tree/index.ipynb", "lab/tree/index.ipynb?token=t"),
        ("?urlpath=lab%3Freset%23top", "lab?reset&token=t#top"),
        ("?labpath=a%20b.ipynb&urlpath=lab", "doc/tree/a%20b.ipynb?token=t"),
        ("?filepath=dir/x%3F.ipynb", "tree/dir/x%3F.ipynb?token=t"),
        ("?urlpath=//evil.example/", "evil.example/?token=t"),
        ("?urlpath=/%5Cevil", "evil?token=t"),
        ("?urlpath=%09//evil", "evil?token=t"),
        ("?urlpath=lab/../../x", "?token=t"),
        ("?urlpath=lab/%252e%252e/x", "?token=t"),
        ("?urlpath=javascript:alert(1)", "javascript:alert(1)?token=t"),
    ],
)
def test_a_launched_link_opens_what_it_asks_for(query: str, opened: str) -> None:
    url = "http://127.0.0.1:8585/jupyter/user/x/"
    assert session_url(url, "t", f"http://127.0.0.1:8585/v2/git/x/HEAD{query}") == url + opened
    assert session_url(url, "t", "git/x/HEAD") == url + "?token=t"


@pytest.mark.parametrize(("answering", "code", "words"), [((), 6, "Not up:"), (("hub",), 6, "Not up:"), (("every",), 0, "Up:")])
def test_status_says_by_its_exit_code_whether_all_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answering: tuple[str, ...], code: int, words: str
) -> None:
    """Nothing is up at this home; what answers is set, as ports of others may be open."""
    monkeypatch.setattr("binder_onprem.host.probes.answers", lambda part: "every" in answering or part.name in answering)
    arguments = ["--home", str(tmp_path), "status"]
    shown = CliRunner().invoke(cli.main, arguments)
    assert (shown.exit_code, words in shown.output) == (code, True)
    told = CliRunner().invoke(cli.main, [*arguments, "--json"])
    assert (told.exit_code, json.loads(told.output)["up"]) == (code, code == 0)
    assert "6 when any does not" in " ".join(CliRunner().invoke(cli.main, ["status", "--help"]).output.split())
