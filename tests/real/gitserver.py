"""A real smart-HTTP git server on loopback, ``git http-backend`` behind Python's own HTTP server, and ways for it to misbehave."""

from __future__ import annotations

import os
import subprocess
import threading
import time
import zlib
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

IDENTITY = {
    "GIT_AUTHOR_NAME": "a",
    "GIT_AUTHOR_EMAIL": "a@b",
    "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@b",
    "GIT_CONFIG_GLOBAL": "/dev/null",
}


def git(place: Path, *words: str) -> str:
    """Run git on the test's own repositories."""
    command = ["git", "-c", "protocol.file.allow=always", "-C", str(place), *words]
    return subprocess.run(command, env=os.environ | IDENTITY, check=True, capture_output=True, text=True).stdout.strip()


def repository(top: Path, name: str, files: Mapping[str, str | bytes]) -> str:
    """Make a repository and return its commit."""
    place = top / name
    place.mkdir(parents=True)
    git(place, "init", "--quiet", "--initial-branch=main")
    git(place, "config", "uploadpack.allowReachableSHA1InWant", "true")
    return commit(place, files)


def commit(place: Path, files: Mapping[str, str | bytes]) -> str:
    """Write files, commit all, return the commit."""
    for path, content in files.items():
        file = place / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    git(place, "add", "--all")
    git(place, "commit", "--quiet", "--allow-empty", "-m", "x")
    return git(place, "rev-parse", "HEAD")


@contextmanager
def serving(top: Path, trouble: Callable[[BaseHTTPRequestHandler], bool] | None = None) -> Iterator[str]:
    """Serve all repositories below a directory; `trouble` may answer a POST itself. Yields the URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(b"")

        def do_POST(self) -> None:
            body = self._chunks() if self.headers.get("Transfer-Encoding") == "chunked" else self.rfile.read(int(self.headers["Content-Length"]))
            if trouble is None or not trouble(self):
                self._answer(body)

        def _chunks(self) -> bytes:
            data = b""
            while size := int(self.rfile.readline(), 16):
                data += self.rfile.read(size)
                self.rfile.readline()
            return data

        def _answer(self, body: bytes) -> None:
            path, _, query = self.path.partition("?")
            env = os.environ | {
                "GIT_PROJECT_ROOT": str(top),
                "GIT_HTTP_EXPORT_ALL": "1",
                "GIT_CONFIG_COUNT": "1",
                "GIT_CONFIG_KEY_0": "safe.directory",
                "GIT_CONFIG_VALUE_0": "*",
                "REQUEST_METHOD": self.command,
                "PATH_INFO": path,
                "QUERY_STRING": query,
                "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            }
            out = subprocess.run(["/usr/lib/git-core/git-http-backend"], env=env, input=body, capture_output=True, check=False).stdout
            head, _, content = out.partition(b"\r\n\r\n")
            fields = [line.split(": ", 1) for line in head.decode().split("\r\n") if ": " in line]
            self.send_response(next((int(value[:3]) for name, value in fields if name == "Status"), 200))
            for name, value in fields:
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def silent(handler: BaseHTTPRequestHandler) -> bool:
    """Take the request, answer never."""
    del handler
    time.sleep(60)
    return True


def endless(handler: BaseHTTPRequestHandler) -> bool:
    """A pack of random bytes that does not end (bounded at 1 GiB, should nobody stop it)."""
    handler.send_response(200)
    handler.send_header("Content-Type", "application/x-git-upload-pack-result")
    handler.end_headers()
    try:
        # protocol v2: "packfile" section, side band 1; a pack of a million stored blobs
        handler.wfile.write(b"000dpackfile\n")
        handler.wfile.write(_packet(b"PACK" + (2).to_bytes(4, "big") + (0xFFFFF).to_bytes(4, "big")))
        for number in range(1024):
            handler.wfile.write(_blob(number))
    except OSError:
        pass
    return True


def _packet(data: bytes) -> bytes:
    return b"%04x\x01" % (len(data) + 5) + data


def _blob(number: int) -> bytes:
    """One stored blob of 1 MiB, as packets."""
    content = number.to_bytes(8, "big") + os.urandom(1024**2 - 8)
    size, head = len(content), b""
    byte = (3 << 4) | (size & 15)
    size >>= 4
    while size:
        head += bytes([byte | 0x80])
        byte, size = size & 0x7F, size >> 7
    data = head + bytes([byte]) + zlib.compress(content, 0)
    return b"".join(_packet(data[start : start + 65000]) for start in range(0, len(data), 65000))
