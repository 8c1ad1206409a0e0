"""Resolving against git's own servers (http-backend, daemon), and real clients through the real gate."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from binder_onprem.config import Config
from binder_onprem.egress import forward
from binder_onprem.egress.addresses import AddressRules
from binder_onprem.egress.gate import Gate
from binder_onprem.errors import InvalidSpec, RefNotFound
from binder_onprem.host.sources import Sources
from binder_onprem.interfaces import Provider
from binder_onprem.providers import checked_session, table
from binder_onprem.providers.links import escaped

POOL = "10.213.0.0/16"
ENV = {
    **{name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
    **{f"GIT_{who}_{what}": "t@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_SYSTEM": "/dev/null",
    "GIT_TERMINAL_PROMPT": "0",
}


def git(*words: str, cwd: Path) -> str:
    return subprocess.run(["git", *words], cwd=cwd, env=ENV, check=True, capture_output=True, text=True).stdout.strip()


def repository(root: Path, name: str, kind: str) -> dict[str, str]:
    """A bare repository with two commits, a branch with a slash, two tags; what each name means."""
    work = root / f"{name}-work"
    git("init", "-q", "-b", "main", f"--object-format={kind}", str(work), cwd=root)
    git("commit", "-q", "--allow-empty", "-m", "one", cwd=work)
    git("tag", "-a", "v1", "-m", "annotated", cwd=work)
    git("tag", "light", cwd=work)
    git("checkout", "-q", "-b", "a/main", cwd=work)
    git("commit", "-q", "--allow-empty", "-m", "two", cwd=work)
    git("checkout", "-q", "main", cwd=work)
    git("clone", "-q", "--bare", str(work), str(root / f"{name}.git"), cwd=root)
    one, two = git("rev-parse", "main", cwd=work), git("rev-parse", "a/main", cwd=work)
    return {"HEAD": one, "main": one, "a/main": two, "v1": one, "light": one, "refs/heads/a/main": two, two[:9]: two, one: one, "master": one}


BACKEND = """
import http.server, os, subprocess, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        path, _, query = self.path.partition("?")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        env = dict(os.environ, GIT_PROJECT_ROOT=sys.argv[1], GIT_HTTP_EXPORT_ALL="1", PATH_INFO=path, QUERY_STRING=query, REQUEST_METHOD=self.command,
                   CONTENT_TYPE=self.headers.get("Content-Type", ""), HTTP_CONTENT_ENCODING=self.headers.get("Content-Encoding", ""),
                   GIT_PROTOCOL=self.headers.get("Git-Protocol", ""))
        out = subprocess.run(["git", "http-backend"], input=body, env=env, capture_output=True).stdout
        head, _, rest = out.partition(b"\\r\\n\\r\\n")
        fields = dict(line.split(": ", 1) for line in head.decode().split("\\r\\n"))
        self.send_response(int(fields.pop("Status", "200").split()[0]))
        for name, value in fields.items(): self.send_header(name, value)
        self.send_header("Content-Length", str(len(rest))); self.end_headers(); self.wfile.write(rest)
    do_POST = do_GET
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
"""


@asynccontextmanager
async def process(*words: str) -> AsyncIterator[asyncio.subprocess.Process]:
    child = await asyncio.create_subprocess_exec(
        *words, env=ENV, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, start_new_session=True
    )
    try:
        yield child
    finally:
        child.terminate()
        await child.communicate()


@asynccontextmanager
async def http_backend(root: Path) -> AsyncIterator[str]:
    async with process(sys.executable, "-c", BACKEND, str(root)) as child:
        assert child.stdout
        yield f"http://127.0.0.1:{int(await child.stdout.readline())}"


@asynccontextmanager
async def git_daemon(root: Path) -> AsyncIterator[str]:
    probe = await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", 0)
    port = probe.sockets[0].getsockname()[1]
    probe.close()
    async with process("git", "daemon", "--listen=127.0.0.1", f"--port={port}", "--export-all", f"--base-path={root}", "--reuseaddr", str(root)):
        for _ in range(100):
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.02)
            else:
                writer.close()
                break
        yield f"git://127.0.0.1:{port}"


SERVERS = {"http": http_backend, "git": git_daemon}


@asynccontextmanager
async def provider() -> AsyncIterator[Provider]:
    site, sources = Config.model_validate({}), Sources(b"", None, "", None, None, None, None, (), frozenset())
    rules = AddressRules(("127.0.0.0/8",), POOL)
    async with checked_session(site, rules, sources) as session:
        yield table(site, sources, rules, session)["git"]


@pytest.mark.parametrize("kind", ["sha1", "sha256"])
@pytest.mark.parametrize("scheme", SERVERS)
async def test_every_way_to_name_a_commit(tmp_path: Path, scheme: str, kind: str) -> None:
    expected = repository(tmp_path, "r", kind)
    async with SERVERS[scheme](tmp_path) as base, provider() as subject:
        for ref, commit in expected.items():
            repo = await subject.resolve(subject.parse(f"{escaped(base + '/r.git')}/{ref}"))
            assert repo.commit == commit, ref
            assert bool(repo.notice) == (ref == "master")
        for ref in ("ain", "nope", "v1%5E%7B%7D", "abcdef012"):
            with pytest.raises((RefNotFound, InvalidSpec)):
                await subject.resolve(subject.parse(f"{escaped(base + '/r.git')}/{ref}"))
        with pytest.raises(RefNotFound):
            await subject.resolve(subject.parse(f"{escaped(base + '/none.git')}/HEAD"))


@pytest.mark.parametrize("scheme", SERVERS)
async def test_git_clones_through_forwarder_and_gate(tmp_path: Path, scheme: str) -> None:
    repository(tmp_path, "r", "sha1")
    socket = tmp_path / "gate.sock"
    gate = Gate(AddressRules(("127.0.0.0/8",), POOL), frozenset())
    async with SERVERS[scheme](tmp_path) as base, gate.serving(socket, None):
        words = [
            sys.executable,
            forward.__file__,
            str(socket),
            "--",
            "sh",
            "-c",
            'no_proxy= NO_PROXY= exec git clone -q "$1" "$2"',
            "sh",
            f"{base}/r.git",
            str(tmp_path / "clone"),
        ]
        child = await asyncio.create_subprocess_exec(*words, env=ENV, stderr=asyncio.subprocess.PIPE)
        _, err = await asyncio.wait_for(child.communicate(), 30)
    assert child.returncode == 0, err
    assert git("rev-parse", "HEAD", cwd=tmp_path / "clone") == git("rev-parse", "main", cwd=tmp_path / "r-work")


@pytest.mark.parametrize("url", ["http://10.213.0.1/r.git", "git://10.213.0.1/r.git", "https://10.213.0.1/r.git"])
async def test_git_is_refused_by_the_gate(tmp_path: Path, url: str) -> None:
    socket = tmp_path / "gate.sock"
    async with Gate(AddressRules((), POOL), frozenset()).serving(socket, None):
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            forward.__file__,
            str(socket),
            "--",
            "git",
            "ls-remote",
            url,
            env=ENV,
            stderr=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        _, err = await asyncio.wait_for(child.communicate(), 30)
    assert child.returncode
    assert b"403" in err
