"""``git http-backend`` behind Python's own HTTP server, on loopback: ``with GitServer(folder) as server: server.url("name")``.

``server.trouble["name"] = Trouble(...)`` makes one repository misbehave from then on; ``server.asked`` lists the requests that came.
"""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import threading
from base64 import b64encode
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from email.message import Message
    from types import TracebackType

Answer = tuple[int, list[tuple[str, str]], bytes]
"""Status, header fields, body."""
BACKEND = Path(subprocess.run(["git", "--exec-path"], capture_output=True, text=True, check=True).stdout.strip()) / "git-http-backend"


@dataclass(frozen=True, slots=True)
class Trouble:
    """How to misbehave.

    Attributes:
        delay: Seconds before anything is answered (ends early when the server stops).
        drip: Seconds between two bytes of the answer's body.
        status: Answer with this status and no body.
        reset: Reset the connection after the head and half of the body.
        redirect: Answer 302 to this URL.
        posts: Only to POST requests (the fetch itself), not to ``info/refs``.
    """

    delay: float = 0
    drip: float = 0
    status: int = 0
    reset: bool = False
    redirect: str = ""
    posts: bool = False


class GitServer:
    """Serves every repository below a folder.

    Args:
        folder: Holds ``name`` or ``name.git`` directories.
        account: ``user:password`` that is asked for; None: nobody is asked.
    """

    def __init__(self, folder: Path, account: str | None = None) -> None:
        self.folder, self.account = folder, account
        self.trouble: dict[str, Trouble] = {}
        self.asked: list[str] = []
        self.stopping = threading.Event()
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def port(self) -> int:
        return self._server.server_port

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.port}/{name}"

    def instead(self, path: str, headers: Message) -> Answer | None:  # noqa: ARG002 - for those who look at it
        """What is answered in git's place; None: git answers."""
        if self.account and headers.get("Authorization", "") != basic(self.account):
            return 401, [("WWW-Authenticate", 'Basic realm="git"')], b""
        return None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, git: GitServer) -> None:
        self.git = git
        super().__init__(("127.0.0.1", 0), _Connection)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is part of the tests."""


class _Connection(BaseHTTPRequestHandler):
    server: _Server
    timeout = 60

    def do_GET(self) -> None:
        self._serve(b"")

    def do_POST(self) -> None:
        chunked = self.headers.get("Transfer-Encoding", "").lower() == "chunked"
        self._serve(self._chunks() if chunked else self.rfile.read(int(self.headers.get("Content-Length", "0"))))

    def log_message(self, *arguments: Any) -> None:
        """Quiet."""

    def _chunks(self) -> bytes:
        parts = []
        while size := int(self.rfile.readline().strip() or b"0", 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        return b"".join(parts)

    def _serve(self, body: bytes) -> None:
        git = self.server.git
        git.asked.append(f"{self.command} {self.path}")
        trouble = git.trouble.get(self.path.split("?")[0].split("/")[1], Trouble())
        if trouble.posts and self.command != "POST":
            trouble = Trouble()
        if trouble.delay and git.stopping.wait(trouble.delay):
            return
        if trouble.redirect:
            self._answer(302, [("Location", trouble.redirect)], b"", trouble)
        elif trouble.status:
            self._answer(trouble.status, [], b"", trouble)
        elif instead := git.instead(self.path, self.headers):
            self._answer(*instead, trouble)
        else:
            self._answer(*self._backend(body), trouble)

    def _backend(self, body: bytes) -> Answer:
        path, _, query = self.path.partition("?")
        environment = {
            "PATH": os.environ["PATH"],
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_CONFIG_COUNT": "2",
            "GIT_CONFIG_KEY_0": "safe.directory",
            "GIT_CONFIG_VALUE_0": "*",
            "GIT_CONFIG_KEY_1": "uploadpack.allowAnySHA1InWant",
            "GIT_CONFIG_VALUE_1": "true",
            "GIT_PROJECT_ROOT": str(self.server.git.folder),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "REQUEST_METHOD": self.command,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
        }
        out = subprocess.run(
            [BACKEND], env=environment, input=body, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=60, check=False
        ).stdout
        head, _, content = out.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if ": " in line)
        return int(fields.pop("Status", "200")[:3]), list(fields.items()), content

    def _answer(self, status: int, fields: list[tuple[str, str]], content: bytes, trouble: Trouble) -> None:
        self.send_response(status)
        for name, value in fields:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if trouble.drip:
            self._drip(content, trouble.drip)
        elif trouble.reset:
            self.wfile.write(content[: len(content) // 2])
            # Zero linger: close() sends RST instead of FIN.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()
        else:
            self.wfile.write(content)

    def _drip(self, content: bytes, pause: float) -> None:
        for number in range(len(content)):
            self.wfile.write(content[number : number + 1])
            self.wfile.flush()
            if self.server.git.stopping.wait(pause):
                return


def basic(account: str) -> str:
    """The header's value for ``user:password``."""
    return "Basic " + b64encode(account.encode()).decode()
